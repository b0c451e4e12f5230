package handlers

import (
	"sync"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/presence"
)

// outboxMessages and outboxBytes are the most that may wait for one client. At the cap it is too slow: its socket is closed at once
// with closeTooSlow, and what waited is lost.
const (
	outboxMessages = 1024
	outboxBytes    = 4 << 20
)

// outbox keeps what waits for a socket's client, in order. Whoever puts something in is told whether to have it written, by calling next
// and written until it is empty. Melody has a queue and a goroutine for this too, but it drops without a word what does not fit, and
// keeps the queue and a grown stack for each idle socket.
type outbox struct {
	mu sync.Mutex
	// mu guards the following
	opened   bool     // by the welcome, and nothing may overtake it
	writing  bool     // somebody is writing
	sealed   bool     // nothing is taken any more
	waiting  [][]byte // the first may be in writing
	bytes    int      // of these
	farewell []byte   // the close frame to send when all is written
	receipts receipts
}

// errand is what is to be done after a push.
type errand int

const (
	noErrand   errand = iota
	mustWrite         // what waits; nobody else does
	mustGiveUp        // this was one too many, and the box is sealed now
)

// push takes a frame, and tells its tally, if it has one, what becomes of it.
func (o *outbox) push(frame []byte, tally *presence.Tally) (taken bool, next errand) {
	var told fates
	defer func() { told.tell() }() // not under the lock: who is told may send
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		told.add(tally, presence.Closed)
		return false, noErrand
	}
	if len(o.waiting) >= outboxMessages || o.bytes+len(frame) > outboxBytes {
		o.sealed = true
		o.receipts.dropAll(presence.Dropped, &told)
		told.add(tally, presence.Dropped)
		return false, mustGiveUp
	}
	o.bytes += len(frame)
	o.waiting = append(o.waiting, frame)
	o.receipts.expect(tally)
	if o.startLocked() {
		return true, mustWrite
	}
	return true, noErrand
}

// open lets frames out, a first one before all that wait. start: the caller is to write.
func (o *outbox) open(first []byte) (start bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened = true
	o.bytes += len(first)
	o.waiting = append([][]byte{first}, o.waiting...)
	o.receipts.expectFirst()
	return o.startLocked()
}

// next is what is to be written now: a frame, or, when none waits any more, the close frame, or nothing.
func (o *outbox) next() (frame, farewell []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.opened && len(o.waiting) > 0 {
		return o.waiting[0], nil
	}
	o.writing = false
	if len(o.waiting) == 0 {
		farewell, o.farewell = o.farewell, nil
	}
	return nil, farewell
}

// written is told of every frame that was written.
func (o *outbox) written(frame []byte) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= len(frame)
	o.waiting[0] = nil
	if o.waiting = o.waiting[1:]; len(o.waiting) == 0 {
		o.waiting = nil
	}
	o.receipts.written(&told)
}

// acked is told of every push that the client has confirmed.
func (o *outbox) acked(push uuid.UUID) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.receipts.acked(push, &told)
}

// seal takes nothing more, and has a close frame sent after what waits and a last frame. start: the caller is to write.
func (o *outbox) seal(last []byte, code int, reason string) (start bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return false
	}
	o.sealed = true
	o.farewell = websocket.FormatCloseMessage(code, reason)
	if last != nil {
		o.bytes += len(last)
		o.waiting = append(o.waiting, last)
	}
	return o.startLocked()
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

// startLocked says whether somebody must begin to write. Before the welcome there is only a farewell to say, if nothing else waits.
func (o *outbox) startLocked() bool {
	if o.writing || !o.opened && len(o.waiting) > 0 {
		return false
	}
	o.writing = true
	return true
}
