package handlers

import (
	"github.com/google/uuid"

	"rollcall/presence"
)

// maxUnacked is how many pushes one client may have to confirm; of more than that nobody hears whether it did.
const maxUnacked = 256

// receipts knows which pushes a client must confirm. The outbox's lock guards it.
type receipts struct {
	unacked map[uuid.UUID]*presence.Tracker // nil while there are none
}

// expect notes a message that was taken, if its client must confirm it.
func (r *receipts) expect(tally *presence.Tracker) {
	if tally == nil {
		return
	}
	push, wanted := tally.Ack()
	if !wanted {
		return
	}
	if len(r.unacked) >= maxUnacked {
		for id, old := range r.unacked {
			if old.Over() {
				delete(r.unacked, id)
			}
		}
		if len(r.unacked) >= maxUnacked {
			return
		}
	}
	if r.unacked == nil {
		r.unacked = map[uuid.UUID]*presence.Tracker{}
	}
	r.unacked[push] = tally
}

// written tells who wants to hear of messages that are written now.
func (r *receipts) written(messages []presence.Message, told *fates) {
	for _, message := range messages {
		if message.Tracker == nil {
			continue
		}
		told.add(message.Tracker, presence.Written)
		if push, ack := message.Tracker.Ack(); ack && r.unacked[push] == nil {
			told.add(message.Tracker, presence.Unconfirmed) // its confirmation will not be noticed
		}
	}
}

// acked tells who waits for a push to be confirmed. The client may be faster than the word that the message, which waits, was written.
func (r *receipts) acked(push uuid.UUID, waiting []presence.Message, told *fates) (awaited bool) {
	tally, ok := r.unacked[push]
	if !ok {
		return false
	}
	r.forget(push)
	for i := range waiting {
		if waiting[i].Tracker == tally {
			waiting[i].Tracker = nil
			told.add(tally, presence.Written)
		}
	}
	told.add(tally, presence.Acked)
	return true
}

func (r *receipts) forget(push uuid.UUID) {
	delete(r.unacked, push)
	if len(r.unacked) == 0 {
		r.unacked = nil
	}
}

// drop tells that what waits will not be written, and what is not confirmed never will be.
func (r *receipts) drop(waiting []presence.Message, fate presence.DeliveryResult, told *fates) {
	for _, message := range waiting {
		if message.Tracker == nil {
			continue
		}
		told.add(message.Tracker, fate)
		if push, ack := message.Tracker.Ack(); ack {
			r.forget(push)
		}
	}
	for _, tally := range r.unacked {
		told.add(tally, presence.Unconfirmed)
	}
	r.unacked = nil
}

// fates are to be told when the lock is released.
type fates []struct {
	tally *presence.Tracker
	fate  presence.DeliveryResult
}

func (f *fates) add(tally *presence.Tracker, fate presence.DeliveryResult) {
	if tally != nil {
		*f = append(*f, struct {
			tally *presence.Tracker
			fate  presence.DeliveryResult
		}{tally, fate})
	}
}

func (f *fates) addAll(messages []presence.Message, fate presence.DeliveryResult) {
	for _, message := range messages {
		f.add(message.Tracker, fate)
	}
}

func (f fates) tell() {
	for _, one := range f {
		one.tally.Report(one.fate)
	}
}
