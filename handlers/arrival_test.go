package handlers

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
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

// followed is what arrival is to say after each byte of a stream.
type followed struct {
	begun bool
	bytes int64
	ended int // messages so far
}

// randomFrames makes messages in fragments, with control frames between, and what is to be known after each
// byte of them.
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
		case !now.begun:
			opcode = byte(1 + r.IntN(2))
		}
		masked := r.IntN(2) == 0
		frame := frameOf(final, opcode, masked, lengthBytes, length)
		head := len(frame) - length
		for n := range frame {
			switch {
			case now.begun:
				now.bytes++
			case !control && n == head-1:
				now.begun, now.bytes = true, int64(head)
			}
			if !control && final && n == len(frame)-1 {
				now.begun, now.bytes, now.ended = false, 0, now.ended+1
			}
			want = append(want, now)
		}
		stream = append(stream, frame...)
	}
	return stream, want
}

func TestArrivalFollowsFramesHoweverTheyAreCut(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		stream, want := randomFrames(r, 20)
		var a arrival
		ended := 0
		for at := 0; at < len(stream); {
			n := 1
			if seed > 20 { // else byte by byte
				n = 1 + r.IntN(min(len(stream)-at, 400))
			}
			a.take(stream[at : at+n])
			before := ended
			at += n
			ended = want[at-1].ended
			if a.begun != want[at-1].begun || a.bytes != want[at-1].bytes || a.ended != (ended > before) {
				t.Fatalf("seed %d, after %d bytes: begun %v, %d bytes, ended %v; want %+v",
					seed, at, a.begun, a.bytes, a.ended, want[at-1])
			}
			a.ended = false
		}
	}
}

func FuzzArrivalSaysTheSameHoweverItsBytesAreCut(f *testing.F) {
	// a length that nothing has
	f.Add([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint8(3))
	f.Add([]byte{0x01, 0x00, 0x89, 0x00, 0x80, 0x01, 0x81}, uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole, cut arrival
		whole.take(stream)
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+int(size))
			cut.take(rest[:n])
			rest = rest[n:]
		}
		if whole != cut {
			t.Errorf("%+v, and in parts %+v", whole, cut)
		}
		if whole.have > 14 || whole.bytes < 0 || whole.bytes > int64(len(stream)) || !whole.begun && whole.bytes > 0 {
			t.Errorf("%+v", whole)
		}
	})
}

// kept is how much is counted now, and of how many messages.
func (u *unfinished) kept() (bytes, messages int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes, u.begun.Len()
}

func TestAMessageThatBeginsBehindOneThatIsHandledSlowlyHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		l := line{Conn: there}
		message := frameOf(true, websocket.TextMessage, true, 0, 100)
		go func() {
			_, _ = here.Write(slices.Concat(message, message[:50]))
			time.Sleep(2*messageTime + messageTime/2)
			_, _ = here.Write(message[50:])
		}()
		read := make([]byte, 1000)
		if n, err := l.Read(read); n != len(message)+50 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(2 * messageTime) // the first is handled
		l.expectMore()
		if n, err := l.Read(read); n != len(message)-50 || err != nil || l.arrival.begun {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestASocketThatEndsWithinAMessageGivesItsRoomBack(t *testing.T) {
	for name, end := range map[string]func(client *websocket.Conn) error{
		"the connection breaks": func(client *websocket.Conn) error { return client.NetConn().Close() },
		"a close frame": func(client *websocket.Conn) error {
			return client.WriteControl(websocket.CloseMessage, nil, time.Time{})
		},
		"a frame that breaks the rules": func(client *websocket.Conn) error {
			_, err := client.NetConn().Write([]byte{0xf3, 0x80, 0, 0, 0, 0})
			return err
		},
		"too many bytes": func(client *websocket.Conn) error {
			_, err := client.NetConn().Write([]byte{0, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0})
			return err
		},
		"too many frames": func(client *websocket.Conn) error {
			empty := strings.Repeat("\x00\x80\x00\x00\x00\x00", 100)
			for {
				if _, err := io.WriteString(client.NetConn(), empty); err != nil {
					return nil // it is cut
				}
			}
		},
		"nothing": func(*websocket.Conn) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTestSockets(t)
				s.limitMessages(64 << 10)
				client := talkTo(t, s)
				part, err := client.NextWriter(websocket.TextMessage)
				if err == nil {
					_, err = part.Write(make([]byte, 20<<10))
				}
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if bytes, _ := s.unfinished.kept(); bytes == 0 {
					t.Fatal("it takes no room")
				}
				if err := end(client.Conn); err != nil {
					t.Fatal(err)
				}
				for range client.frames {
				}
				client.Close()
				s.open.Wait()
				if bytes, messages := s.unfinished.kept(); bytes != 0 || messages != 0 || s.number() != 0 {
					t.Errorf("%d bytes of %d messages of %d sockets are still counted", bytes, messages, s.number())
				}
			})
		})
	}
}
