package handlers

import (
	"sync"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/presence"
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
	receipts receipts
}

// push takes a frame, and tells its tally, if it has one, what becomes of it. full: this is one too many; the box is sealed now.
func (o *outbox) push(frame []byte, tally *presence.Tally) (taken, full bool) {
	var told fates
	defer func() { told.tell() }() // not under the lock: who is told may send
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		told.add(tally, presence.Closed)
		return false, false
	}
	if o.handed+len(o.waiting) >= outboxMessages || o.bytes+len(frame) > outboxBytes {
		o.sealed = true
		o.receipts.dropAll(presence.Dropped, &told)
		told.add(tally, presence.Dropped)
		return false, true
	}
	o.bytes += len(frame)
	o.waiting = append(o.waiting, frame)
	o.receipts.expect(tally)
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
	o.receipts.expectFirst()
	o.fillLocked()
}

// written is told of every frame that Melody has written. It returns the farewell if that was the last frame.
func (o *outbox) written(frame []byte) (farewell []byte) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handed--
	o.bytes -= len(frame)
	o.receipts.written(&told)
	o.fillLocked()
	return o.farewellLocked()
}

// acked is told of every push that the client has confirmed.
func (o *outbox) acked(push uuid.UUID) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.receipts.acked(push, &told)
}

// seal takes nothing more, and has a close frame sent after what waits and a last frame. It returns the close frame if nothing waits.
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

// end takes nothing more: the connection is gone, or its client is about to go.
func (o *outbox) end() {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	o.receipts.dropAll(presence.Closed, &told)
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
