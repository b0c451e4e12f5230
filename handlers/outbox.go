package handlers

import (
	"slices"
	"sync"
	"time"

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

// backlogBytes is the most that a connection keeps behind what the kernel has taken: what an outbox hands it at a time,
// and some control frames. writeTime is how long the client's side may take nothing of that.
const (
	backlogBytes = outboxBytes + 64<<10
	writeTime    = 10 * time.Second
)

// batchBytes is how much is written at a time, if it is more than one message.
const batchBytes = 64 << 10

// writer is the way to a client.
type writer interface {
	// write writes messages. Unless they are sent at once, the outbox's written is called later.
	write([]presence.Message) (sent bool)
	// allSent says whether everything that was written is sent.
	allSent() bool
}

// outbox keeps what waits for a socket's client, in order. Mostly that is nothing: a message is written when it comes.
type outbox struct {
	mu sync.Mutex
	// mu guards the following
	client   writer // nil until the welcome, which nothing may overtake
	waiting  []presence.Message
	handed   int    // of these, from the first on, such as are being written
	bytes    int    // of all that wait
	sealed   bool   // nothing is taken any more
	farewell []byte // the close frame to send when all is written
	receipts receipts
}

// push takes messages, all or none, and tells their tallies what becomes of them. full: they are too many; the box is sealed now.
func (o *outbox) push(messages []presence.Message) (taken, full bool) {
	var told fates
	defer func() { told.tell() }() // not under the lock: who is told may send
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		told.addAll(messages, presence.Closed)
		return false, false
	}
	bytes := size(messages)
	if len(o.waiting)+len(messages) > outboxMessages || o.bytes+bytes > outboxBytes {
		o.sealed = true
		o.dropAllLocked(presence.Dropped, &told)
		told.addAll(messages, presence.Dropped)
		return false, true
	}
	for _, message := range messages {
		o.receipts.expect(message.Tracker)
	}
	idle := o.client != nil && len(o.waiting) == 0
	if idle && o.client.write(messages) {
		o.receipts.written(messages, &told)
		return true, false
	}
	for _, message := range messages {
		if message.Shared == nil {
			message.Frame = slices.Clone(message.Frame) // it is a part of what came with many others, which would all be kept
		}
		o.waiting = append(o.waiting, message)
	}
	o.bytes += bytes
	if idle {
		o.handed = len(messages)
	}
	return true, false
}

// open lets messages out, a first one before all that wait. It returns the close frame if there is one to send and nothing waits.
func (o *outbox) open(first []byte, client writer) (farewell []byte) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.client = client
	o.bytes += len(first)
	o.waiting = append([]presence.Message{{Frame: first}}, o.waiting...)
	o.fillLocked(&told)
	return o.farewellLocked()
}

// written is called when something was handed over and is written now. It returns the farewell if nothing else waits.
func (o *outbox) written() (farewell []byte) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == nil || !o.client.allSent() {
		return nil // more was handed over since
	}
	o.wroteLocked(&told)
	o.fillLocked(&told)
	return o.farewellLocked()
}

// isSealed says whether nothing is taken any more: the client goes, or was told to go.
func (o *outbox) isSealed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sealed
}

// acked is told of every push that the client has confirmed. awaited: somebody waits for that.
func (o *outbox) acked(push uuid.UUID) (awaited bool) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.receipts.acked(push, o.waiting, &told)
}

// seal takes nothing more, and has a close frame sent after what waits and a last frame. It returns the close frame if nothing waits.
func (o *outbox) seal(last []byte, code int, reason string) (farewell []byte) {
	var told fates
	defer func() { told.tell() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return nil
	}
	o.sealed = true
	o.farewell = websocket.FormatCloseMessage(code, reason)
	if last != nil {
		o.bytes += len(last)
		o.waiting = append(o.waiting, presence.Message{Frame: last})
		o.fillLocked(&told)
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
	o.dropAllLocked(presence.Closed, &told)
}

func (o *outbox) dropAllLocked(fate presence.DeliveryResult, told *fates) {
	o.receipts.drop(o.waiting, fate, told)
	o.waiting, o.handed, o.bytes = nil, 0, 0
}

func (o *outbox) farewellLocked() []byte {
	if len(o.waiting) > 0 {
		return nil
	}
	farewell := o.farewell
	o.farewell = nil
	return farewell
}

// fillLocked hands over what waits, unless there is something being written.
func (o *outbox) fillLocked(told *fates) {
	for o.client != nil && o.handed == 0 && len(o.waiting) > 0 {
		o.handed = batchOf(o.waiting)
		if !o.client.write(o.waiting[:o.handed]) {
			return
		}
		o.wroteLocked(told)
	}
}

// wroteLocked forgets what was handed over: it is written.
func (o *outbox) wroteLocked(told *fates) {
	written := o.waiting[:o.handed]
	o.receipts.written(written, told)
	o.bytes -= size(written)
	clear(written)
	o.waiting, o.handed = o.waiting[o.handed:], 0
	if len(o.waiting) == 0 {
		o.waiting = nil
	}
}

// batchOf is how many of these messages are written at a time.
func batchOf(messages []presence.Message) int {
	bytes := 0
	last := slices.IndexFunc(messages, func(m presence.Message) bool {
		bytes += len(m.Frame)
		return bytes >= batchBytes
	})
	if last < 0 {
		return len(messages)
	}
	return last + 1
}

func size(messages []presence.Message) (bytes int) {
	for _, message := range messages {
		bytes += len(message.Frame)
	}
	return bytes
}
