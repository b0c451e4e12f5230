package nbconn

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// frameOf is a frame of RFC 6455, 5.2. What it has after its head is never looked at.
func frameOf(final bool, opcode byte, masked bool, lengthBytes int, length int) []byte {
	head := []byte{opcode, 0}
	if final {
		head[0] |= 0x80
	}
	switch lengthBytes {
	case 2:
		head[1] = 126
		head = binary.BigEndian.AppendUint16(head, uint16(length))
	case 8:
		head[1] = 127
		head = binary.BigEndian.AppendUint64(head, uint64(length))
	default:
		head[1] = byte(length)
	}
	if masked {
		head[1] |= 0x80
		head = append(head, 0xff, 0x81, 0x88, 0x7f)
	}
	return append(head, strings.Repeat("\x81", length)...) // which looks like the beginning of a frame
}

// followed is what a follower should know after each byte of a stream.
type followed struct {
	inMessage bool
	bytes     int64
	ended     int // messages so far
}

// randomFrames makes messages in fragments, with control frames between, and what a follower should know
// after each byte of them.
func randomFrames(r *rand.Rand, count int) (stream []byte, want []followed) {
	now := followed{}
	for range count {
		lengthBytes, most := 0, 126
		switch r.IntN(4) {
		case 0:
			lengthBytes, most = 2, 300
		case 1:
			lengthBytes, most = 8, 300
		}
		length := r.IntN(most)
		if r.IntN(3) == 0 {
			length = 0
		}
		final, opcode, control := r.IntN(2) == 0, byte(0), r.IntN(3) == 0
		switch {
		case control:
			final, opcode = true, byte(8+r.IntN(3))
		case !now.inMessage:
			opcode = byte(1 + r.IntN(2))
		}
		masked := r.IntN(2) == 0
		frame := frameOf(final, opcode, masked, lengthBytes, length)
		head := len(frame) - length
		for n := range frame {
			switch {
			case now.inMessage:
				now.bytes++
			case !control && n == head-1:
				now.inMessage, now.bytes = true, int64(head)
			}
			if !control && final && n == len(frame)-1 {
				now.inMessage, now.bytes, now.ended = false, 0, now.ended+1
			}
			want = append(want, now)
		}
		stream = append(stream, frame...)
	}
	return stream, want
}

func TestFollower_FollowsFramesHoweverTheyAreCut(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		stream, want := randomFrames(r, 20)
		var f follower
		ended := 0
		for at := 0; at < len(stream); {
			n := 1
			if seed > 20 { // else byte by byte
				n = 1 + r.IntN(min(len(stream)-at, 400))
			}
			gotEnd := f.follow(stream[at : at+n])
			before := ended
			at += n
			ended = want[at-1].ended
			now := want[at-1]
			if f.inMessage != now.inMessage || f.bytes != now.bytes || gotEnd != (ended > before) {
				t.Fatalf("seed %d, after %d bytes: in a message %v, %d bytes, ended %v; want %+v",
					seed, at, f.inMessage, f.bytes, gotEnd, now)
			}
		}
	}
}

func FuzzFollower_SaysTheSameHoweverItsBytesAreCut(f *testing.F) {
	// a length that no message has
	f.Add([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint8(3))
	f.Add([]byte{0x01, 0x00, 0x89, 0x00, 0x80, 0x01, 0x81}, uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole, cut follower
		wholeEnd, cutEnd := whole.follow(stream), false
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+int(size))
			cutEnd = cut.follow(rest[:n]) || cutEnd
			rest = rest[n:]
		}
		if whole != cut || wholeEnd != cutEnd {
			t.Errorf("%+v, and in parts %+v", whole, cut)
		}
		possible := whole.have <= 14 && 0 <= whole.bytes && whole.bytes <= int64(len(stream))
		if !possible || !whole.inMessage && whole.bytes > 0 {
			t.Errorf("%+v", whole)
		}
	})
}
