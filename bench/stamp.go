package main

import (
	"bytes"
	"strconv"
	"time"
)

// The data of a push is a JSON string of a given size that begins with a stamp:
//
//	"<number, 12 digits> <when it was due, ns since 1970, 19 digits> xxxxx"
//
// Push number n is for user n modulo the number of users, so that whoever gets it can tell whether it got there rightly. An emit is for
// everybody.
const stampSize = 1 + 12 + 1 + 19 + 1 + 1

// stamp makes the data of a push. Without a time its delay is not measured.
func stamp(number int64, due time.Time, size int) []byte {
	data := bytes.Repeat([]byte{'x'}, size)
	data[0], data[13], data[33], data[size-1] = '"', ' ', ' ', '"'
	nanos := int64(0)
	if !due.IsZero() {
		nanos = due.UnixNano()
	}
	writeDigits(data[1:13], number)
	writeDigits(data[14:33], nanos)
	return data
}

func writeDigits(field []byte, n int64) {
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte('0' + n%10)
		n /= 10
	}
}

// readStamp finds the stamp in a frame.
func readStamp(frame []byte) (number, nanos int64, ok bool) {
	_, data, found := bytes.Cut(frame, []byte(`"data":"`))
	if !found || len(data) < stampSize-1 {
		return 0, 0, false
	}
	number, err := strconv.ParseInt(string(data[:12]), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	nanos, err = strconv.ParseInt(string(data[13:32]), 10, 64)
	return number, nanos, err == nil
}
