package sockets

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/presence"
)

// Why a socket has its queue and its backlog.
//
// What the outbox hands over, gorilla/websocket makes frames of, and nbconn.Conn has the kernel take. If the
// kernel takes only a part of these bytes, Conn keeps the rest: the backlog. The outbox hands over nothing
// more until that is sent. So the backlog is only what is left of one batch, as bytes, with a few control
// frames. The queue is here, as messages: only so can their trackers be told, each when its own message is
// written, and can a client that is too slow lose all that waits and still get a whole close frame.
//
// One queue of bytes would have to keep the ends of all messages beside them, and saves nothing: both are
// empty for a client that reads, and an idle socket pays 24 bytes for an empty backlog.

// outboxMessages and outboxBytes are the most that may wait for one client. At the cap the client is too
// slow: its socket is closed at once with closeTooSlow, and what waited is lost.
const (
	outboxMessages = 1024
	outboxBytes    = 4 << 20
)

// backlogBytes is the most that a connection keeps: the largest message that an outbox hands over, and some
// control frames. writeTime is how long the client's side may take nothing of that.
const (
	backlogBytes = outboxBytes + 64<<10
	writeTime    = 10 * time.Second
)

// batchBytes is how much is handed over at a time, if it is more than one message.
const batchBytes = 64 << 10

// writer is the way to a client.
type writer interface {
	// write writes messages. If it returns false, the outbox's written is called when they are sent.
	write([]presence.Message) (sent bool)
	// allSent says whether everything that was written is sent.
	allSent() bool
}

// outbox keeps what waits for a socket's client, in order. Mostly that is nothing: a message is written when
// it comes.
type outbox struct {
	mu sync.Mutex
	// mu guards the following
	client     writer // nil until the welcome, which must be the first frame
	waiting    []presence.Message
	handed     int    // so many of these, from the first on, are being written
	bytes      int    // of all that wait
	sealed     bool   // nothing is taken any more
	closeFrame []byte // the payload of the close frame that is due when all is written; nil: none
	unacked    unacked
}

// push takes messages, all or none, and reports to their trackers what becomes of them. If there was no room,
// full is true, and the outbox is sealed now.
func (o *outbox) push(messages []presence.Message) (taken, full bool) {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		notify.addAll(messages, presence.Closed)
		return false, false
	}
	if len(o.waiting)+len(messages) > outboxMessages || o.bytes+size(messages) > outboxBytes {
		o.sealed = true
		o.dropAllLocked(presence.Dropped, &notify)
		notify.addAll(messages, presence.Dropped)
		return false, true
	}
	for _, message := range messages {
		o.unacked.expect(message.Tracker)
	}
	idle := o.client != nil && len(o.waiting) == 0
	if idle && o.client.write(messages) {
		o.unacked.written(messages, &notify)
		return true, false
	}
	o.keepLocked(messages)
	if idle {
		o.handed = len(messages)
	}
	return true, false
}

// keepLocked lets messages wait.
func (o *outbox) keepLocked(messages []presence.Message) {
	o.bytes += size(messages)
	for _, message := range messages {
		if message.Shared == nil { // the frame may be a part of a large buffer, which must not be kept for it
			message.Frame = slices.Clone(message.Frame)
		}
		o.waiting = append(o.waiting, message)
	}
}

// open lets messages out, a first one before all that wait. It returns the close frame if that is due
// already.
func (o *outbox) open(first []byte, client writer) (closeFrame []byte) {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.client = client
	o.bytes += len(first)
	o.waiting = append([]presence.Message{{Frame: first}}, o.waiting...)
	o.fillLocked(&notify)
	return o.dueLocked()
}

// written is called when what was handed over is written. It returns the close frame if that is due now.
func (o *outbox) written() (closeFrame []byte) {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == nil || !o.client.allSent() {
		return nil // more was handed over since
	}
	o.wroteLocked(&notify)
	o.fillLocked(&notify)
	return o.dueLocked()
}

// isSealed says whether nothing is taken any more: the client goes, or was told to go.
func (o *outbox) isSealed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sealed
}

// ack is called when the client has confirmed a push. awaited says whether somebody waits for that.
func (o *outbox) ack(push uuid.UUID) (awaited bool) {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unacked.ack(push, o.waiting, &notify)
}

// seal takes nothing more, and makes a close frame due after what waits and a last frame. It returns the
// close frame if that is due already.
func (o *outbox) seal(last []byte, code int, reason string) (closeFrame []byte) {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return nil
	}
	o.sealed = true
	o.closeFrame = websocket.FormatCloseMessage(code, reason)
	if last != nil {
		o.bytes += len(last)
		o.waiting = append(o.waiting, presence.Message{Frame: last})
		o.fillLocked(&notify)
	}
	return o.dueLocked()
}

// end takes nothing more: the connection is gone, or its client is about to go.
func (o *outbox) end() {
	var notify notifications
	defer func() { notify.send() }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	o.dropAllLocked(presence.Closed, &notify)
}

func (o *outbox) dropAllLocked(why presence.DeliveryResult, notify *notifications) {
	o.unacked.drop(o.waiting, why, notify)
	o.waiting, o.handed, o.bytes = nil, 0, 0
}

// dueLocked returns the close frame, once, if nothing waits any more.
func (o *outbox) dueLocked() []byte {
	if len(o.waiting) > 0 {
		return nil
	}
	due := o.closeFrame
	o.closeFrame = nil
	return due
}

// fillLocked hands over what waits, unless something is being written.
func (o *outbox) fillLocked(notify *notifications) {
	for o.client != nil && o.handed == 0 && len(o.waiting) > 0 {
		o.handed = batchOf(o.waiting)
		if !o.client.write(o.waiting[:o.handed]) {
			return
		}
		o.wroteLocked(notify)
	}
}

// wroteLocked forgets what was handed over: it is written.
func (o *outbox) wroteLocked(notify *notifications) {
	written := o.waiting[:o.handed]
	o.unacked.written(written, notify)
	o.bytes -= size(written)
	clear(written)
	o.waiting, o.handed = o.waiting[o.handed:], 0
	if len(o.waiting) == 0 {
		o.waiting = nil
	}
}

// batchOf is how many of these messages are handed over at a time.
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
