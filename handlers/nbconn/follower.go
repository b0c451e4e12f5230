package nbconn

import "encoding/binary"

// follower follows the frames in what a client sends, and says whether a message is under way. It looks only
// at the heads of frames. Their layout is that of RFC 6455, section 5.2:
//
//	byte 0    final (0x80), and the opcode in the lowest 4 bits; those from 8 on are control frames,
//	          which may come between the frames of a message
//	byte 1    masked (0x80), and the length in the lowest 7 bits: up to 125;
//	          126: the length is in the next 2 bytes; 127: in the next 8
//	then      4 bytes of mask, if masked; then the payload
//
// It refuses nothing: what breaks these rules gorilla/websocket refuses, which ends the connection.
type follower struct {
	head [14]byte // of the current frame
	have uint8    // bytes of head that have come
	rest uint64   // bytes of the payload that have not come

	inMessage bool  // a message has begun, and its end has not come
	bytes     int64 // of that message so far, with the heads of its frames and the control frames between
}

// follow takes the next bytes. It reports whether a message has ended in them.
func (f *follower) follow(p []byte) (ended bool) {
	for len(p) > 0 {
		if f.rest == 0 {
			f.head[f.have] = p[0]
			f.have++
			f.count(1)
			p = p[1:]
			if !f.readHead() {
				continue
			}
		} else {
			n := min(f.rest, uint64(len(p)))
			f.rest -= n
			f.count(int64(n))
			p = p[n:]
		}
		if f.rest == 0 && f.endFrame() {
			ended = true
		}
	}
	return ended
}

func (f *follower) count(n int64) {
	if f.inMessage {
		f.bytes += n
	}
}

// readHead reads the head of a frame. It reports whether the head is whole.
func (f *follower) readHead() (whole bool) {
	if f.have < 2 {
		return false
	}
	size, short := f.headSize()
	if f.have < size {
		return false
	}
	switch short {
	case 126:
		f.rest = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		f.rest = binary.BigEndian.Uint64(f.head[2:])
	default:
		f.rest = uint64(short)
	}
	if !f.isControl() && !f.inMessage {
		f.inMessage, f.bytes = true, int64(size)
	}
	return true
}

// headSize is the size of the current head, of which two bytes have come, and the length that these have.
func (f *follower) headSize() (size, short uint8) {
	size, short = 2, f.head[1]&0x7f
	switch short {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if masked := f.head[1]&0x80 != 0; masked {
		size += 4
	}
	return size, short
}

// endFrame ends a frame. It reports whether a message has ended with it.
func (f *follower) endFrame() (message bool) {
	f.have = 0
	if final := f.head[0]&0x80 != 0; !final || f.isControl() {
		return false
	}
	f.inMessage, f.bytes = false, 0
	return true
}

func (f *follower) isControl() bool { return f.head[0]&0x08 != 0 }
