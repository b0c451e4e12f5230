package handlers

import (
	"sync"

	"github.com/gorilla/websocket"
)

// melodyBuffer is how many frames wait in a socket's channel to Melody's writer. The channel is paid for by idle sockets too (48 bytes
// a place), so it is short, and what does not fit waits in the outbox, which is empty most of the time.
const melodyBuffer = 8

// outboxMessages and outboxBytes are the most that may wait for one client. At the cap it is too slow: its socket is closed at once
// with closeTooSlow, and what waited is lost.
const (
	outboxMessages = 1024
	outboxBytes    = 4 << 20
)

// outbox keeps what waits for a socket's client, in order.
type outbox struct {
	mu sync.Mutex
	// mu guards the following
	write    func(frame []byte) // hands a frame to Melody; nil until the welcome, and nothing may overtake it
	waiting  [][]byte           // frames that Melody has no room for
	handed   int                // frames that Melody has
	bytes    int                // of both
	sealed   bool               // nothing is taken any more
	farewell []byte             // the close frame to send when all is written
}

// push takes a frame. full: this is one too many; the box is sealed now.
func (o *outbox) push(frame []byte) (taken, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return false, false
	}
	if o.handed+len(o.waiting) >= outboxMessages || o.bytes+len(frame) > outboxBytes {
		o.sealed = true
		return false, true
	}
	o.bytes += len(frame)
	o.waiting = append(o.waiting, frame)
	o.fillLocked()
	return true, false
}

// open lets frames out, a first one before all that wait.
func (o *outbox) open(first []byte, write func([]byte)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.write = write
	o.bytes += len(first)
	o.waiting = append([][]byte{first}, o.waiting...)
	o.fillLocked()
}

// written is told of every frame that Melody has written. It returns the farewell if that was the last frame.
func (o *outbox) written(frame []byte) (farewell []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handed--
	o.bytes -= len(frame)
	o.fillLocked()
	return o.farewellLocked()
}

// seal takes nothing more, and has a close frame sent after what waits. It returns it if nothing does.
func (o *outbox) seal(last []byte, code int, reason string) (farewell []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return nil
	}
	o.sealed = true
	o.farewell = websocket.FormatCloseMessage(code, reason)
	if last != nil {
		o.bytes += len(last)
		o.waiting = append(o.waiting, last)
		o.fillLocked()
	}
	return o.farewellLocked()
}

func (o *outbox) farewellLocked() []byte {
	if o.handed > 0 || len(o.waiting) > 0 {
		return nil
	}
	farewell := o.farewell
	o.farewell = nil
	return farewell
}

func (o *outbox) fillLocked() {
	if o.write == nil {
		return
	}
	for o.handed < melodyBuffer && len(o.waiting) > 0 {
		o.handed++
		o.write(o.waiting[0])
		o.waiting[0] = nil
		o.waiting = o.waiting[1:]
	}
	if len(o.waiting) == 0 {
		o.waiting = nil
	}
}
