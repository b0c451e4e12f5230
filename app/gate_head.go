package main

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
)

// maxHeadLines is how many lines the head of a request may have. Each line costs net/http some 80 bytes,
// however short it is.
const maxHeadLines = 256

var errHeadLines = errors.New("the head of the request has too many lines")

// headCounter is a connection that counts the lines of heads as they are read. When the connection becomes a
// socket it has no visit any more, and counting costs next to nothing.
type headCounter struct {
	*net.TCPConn
	visit atomic.Pointer[visit]
}

func newHeadCounter(conn *net.TCPConn, v *visit) *headCounter {
	c := &headCounter{TCPConn: conn}
	c.visit.Store(v)
	return c
}

// Plain returns the connection without the counter, for a socket.
func (c *headCounter) Plain() net.Conn { return c.TCPConn }

// Read implements net.Conn. It fails when a head has too many lines.
func (c *headCounter) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if v := c.visit.Load(); v != nil && v.headLines.Add(v.countHeadLines(p[:n])) > maxHeadLines {
		return 0, errHeadLines
	}
	return n, err
}

// countHeadLines counts the lines in what was read, up to the end of the head: a body may follow.
func (v *visit) countHeadLines(read []byte) int64 {
	end := []byte("\n\r\n")
	before := v.tail
	joint := append(before[:], read[:min(len(read), 2)]...) // the end may be cut in two by the reads
	copy(v.tail[:], joint[len(joint)-2:])
	if n := len(read); n > 2 {
		copy(v.tail[:], read[n-2:])
	}
	if bytes.Contains(joint, end) {
		return 1
	}
	head, _, _ := bytes.Cut(read, end)
	return int64(bytes.Count(head, []byte("\n")))
}
