package handlers

import "encoding/binary"

// arrival follows the frames in what a client sends. Melody hands on only whole messages; arrival knows of those whose end has not come
// yet. The layout of a frame is that of RFC 6455, section 5.2:
//
//	byte 0    final (0x80), and the opcode in the lowest 4 bits; those from 8 on are control frames, which may come between others
//	byte 1    masked (0x80), and the length in the lowest 7 bits: up to 125; 126: in the next 2 bytes; 127: in the next 8
//	then      4 bytes of mask, if masked; then the payload
//
// What breaks these rules gorilla/websocket refuses, which ends the connection; arrival only counts.
type arrival struct {
	head [14]byte // of the frame in hand
	have uint8    // bytes of head that have come
	rest uint64   // bytes of its payload that have not come

	begun bool  // a message has begun, and its end has not come
	bytes int64 // of that message, with its heads and the control frames between
	ended bool  // a message has ended since this was last cleared
}

// take follows what has come.
func (a *arrival) take(p []byte) {
	for len(p) > 0 {
		if a.rest == 0 {
			a.head[a.have] = p[0]
			a.have++
			a.count(1)
			p = p[1:]
			a.endOfHead()
			continue
		}
		n := min(a.rest, uint64(len(p)))
		a.rest -= n
		a.count(int64(n))
		p = p[n:]
		a.endOfFrame()
	}
}

func (a *arrival) count(n int64) {
	if a.begun {
		a.bytes += n
	}
}

// endOfHead looks whether the head is whole.
func (a *arrival) endOfHead() {
	if a.have < 2 {
		return
	}
	length, size := uint64(a.head[1]&0x7f), uint8(2)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	masked := a.head[1]&0x80 != 0
	if masked {
		size += 4
	}
	if a.have < size {
		return
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(a.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(a.head[2:])
	}
	a.rest = length
	if !a.isControl() && !a.begun {
		a.begun, a.bytes = true, int64(size)
	}
	a.endOfFrame()
}

func (a *arrival) endOfFrame() {
	if a.rest > 0 {
		return
	}
	a.have = 0
	if final := a.head[0]&0x80 != 0; final && !a.isControl() {
		a.begun, a.bytes, a.ended = false, 0, true
	}
}

func (a *arrival) isControl() bool { return a.head[0]&0x08 != 0 }
