package sockets

import (
	"github.com/google/uuid"

	"rollcall/presence"
)

// maxUnacked is how many pushes one client may have to confirm. A confirmation of one beyond that is not
// noticed.
const maxUnacked = 256

// unacked knows which pushes a client must still confirm. The outbox's lock guards it.
type unacked struct {
	pushes map[uuid.UUID]*presence.Tracker // nil while there are none
}

// expect notes a message that was taken, if its client must confirm it.
func (u *unacked) expect(tracker *presence.Tracker) {
	if tracker == nil {
		return
	}
	push, wanted := tracker.Ack()
	if !wanted || !u.makeRoom() {
		return
	}
	if u.pushes == nil {
		u.pushes = map[uuid.UUID]*presence.Tracker{}
	}
	u.pushes[push] = tracker
}

// makeRoom says whether there is room for one more. If there is none, it forgets those that nobody waits for
// any more.
func (u *unacked) makeRoom() bool {
	if len(u.pushes) < maxUnacked {
		return true
	}
	for push, tracker := range u.pushes {
		if tracker.Done() {
			delete(u.pushes, push)
		}
	}
	return len(u.pushes) < maxUnacked
}

// written adds what became of messages that are written now.
func (u *unacked) written(messages []presence.Message, notify *notifications) {
	for _, message := range messages {
		if message.Tracker == nil {
			continue
		}
		notify.add(message.Tracker, presence.Written)
		if push, wanted := message.Tracker.Ack(); wanted && u.pushes[push] == nil {
			notify.add(message.Tracker, presence.Unconfirmed) // its confirmation will not be noticed
		}
	}
}

// ack adds what became of a push that the client has confirmed. The message may be among those that wait: the
// client can be faster than the notice that it was written. awaited says whether somebody waits for that.
func (u *unacked) ack(push uuid.UUID, waiting []presence.Message, notify *notifications) (awaited bool) {
	tracker, ok := u.pushes[push]
	if !ok {
		return false
	}
	u.forget(push)
	for i := range waiting {
		if waiting[i].Tracker == tracker {
			waiting[i].Tracker = nil
			notify.add(tracker, presence.Written)
		}
	}
	notify.add(tracker, presence.Acked)
	return true
}

func (u *unacked) forget(push uuid.UUID) {
	delete(u.pushes, push)
	if len(u.pushes) == 0 {
		u.pushes = nil
	}
}

// drop adds what became of what waits, which will not be written, and of what is not confirmed, which never
// will be.
func (u *unacked) drop(waiting []presence.Message, why presence.DeliveryResult, notify *notifications) {
	for _, message := range waiting {
		if message.Tracker == nil {
			continue
		}
		notify.add(message.Tracker, why)
		if push, wanted := message.Tracker.Ack(); wanted {
			u.forget(push)
		}
	}
	for _, tracker := range u.pushes {
		notify.add(tracker, presence.Unconfirmed)
	}
	u.pushes = nil
}

// notifications are gathered under the outbox's lock, and sent when it is released: what waits for a tracker
// may push.
type notifications []notification

type notification struct {
	tracker *presence.Tracker
	result  presence.DeliveryResult
}

func (n *notifications) add(tracker *presence.Tracker, result presence.DeliveryResult) {
	if tracker != nil {
		*n = append(*n, notification{tracker, result})
	}
}

func (n *notifications) addAll(messages []presence.Message, result presence.DeliveryResult) {
	for _, message := range messages {
		n.add(message.Tracker, result)
	}
}

func (n notifications) send() {
	for _, one := range n {
		one.tracker.Report(one.result)
	}
}
