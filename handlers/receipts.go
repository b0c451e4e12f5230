package handlers

import (
	"github.com/google/uuid"

	"rollcall/presence"
)

// maxUnacked is how many pushes one client may have to confirm; of more than that nobody hears whether it did.
const maxUnacked = 256

// receipts knows which frames of an outbox somebody wants to hear of. Frames are written in the order in which they came, so it is
// enough to count them. The outbox's lock guards it.
type receipts struct {
	came, gone uint64 // frames taken, and frames written
	wanted     []receipt
	unacked    map[uuid.UUID]*presence.Tally // pushes that the client must confirm; nil while there are none
}

// receipt is for the frame with a number.
type receipt struct {
	number  uint64
	tally   *presence.Tally
	tracked bool // its confirmation will be noticed
}

// expect numbers a frame, and remembers who wants to hear of it.
func (r *receipts) expect(tally *presence.Tally) {
	r.came++
	if tally != nil {
		r.wanted = append(r.wanted, receipt{r.came, tally, r.track(tally)})
	}
}

// expectFirst numbers a frame that goes before all others.
func (r *receipts) expectFirst() {
	r.came++
	for i := range r.wanted {
		r.wanted[i].number++
	}
}

func (r *receipts) track(tally *presence.Tally) bool {
	push, wanted := tally.Ack()
	if !wanted {
		return false
	}
	if len(r.unacked) >= maxUnacked {
		for id, old := range r.unacked {
			if old.Over() {
				delete(r.unacked, id)
			}
		}
		if len(r.unacked) >= maxUnacked {
			return false
		}
	}
	if r.unacked == nil {
		r.unacked = map[uuid.UUID]*presence.Tally{}
	}
	r.unacked[push] = tally
	return true
}

// written tells who wants to hear of the frame that was written now.
func (r *receipts) written(told *fates) {
	r.gone++
	if len(r.wanted) == 0 || r.wanted[0].number != r.gone {
		return
	}
	one := r.wanted[0]
	r.wanted = r.wanted[1:]
	if len(r.wanted) == 0 {
		r.wanted = nil
	}
	told.add(one.tally, presence.Written)
	if _, ack := one.tally.Ack(); ack && !one.tracked {
		told.add(one.tally, presence.Silent)
	}
}

// acked tells who waits for a push to be confirmed. The client may be faster than the word that the frame was written.
func (r *receipts) acked(push uuid.UUID, told *fates) {
	tally, ok := r.unacked[push]
	if !ok {
		return
	}
	delete(r.unacked, push)
	if len(r.unacked) == 0 {
		r.unacked = nil
	}
	for i, one := range r.wanted {
		if one.tally == tally {
			r.wanted = append(r.wanted[:i:i], r.wanted[i+1:]...)
			told.add(tally, presence.Written)
			break
		}
	}
	told.add(tally, presence.Acked)
}

// dropAll tells that what was not written never will be, and what was not confirmed neither.
func (r *receipts) dropAll(fate presence.Fate, told *fates) {
	for _, one := range r.wanted {
		told.add(one.tally, fate)
		if push, ack := one.tally.Ack(); ack {
			delete(r.unacked, push)
		}
	}
	for _, tally := range r.unacked {
		told.add(tally, presence.Silent)
	}
	r.wanted, r.unacked = nil, nil
}

// fates are to be told when the lock is released.
type fates []struct {
	tally *presence.Tally
	fate  presence.Fate
}

func (f *fates) add(tally *presence.Tally, fate presence.Fate) {
	if tally != nil {
		*f = append(*f, struct {
			tally *presence.Tally
			fate  presence.Fate
		}{tally, fate})
	}
}

func (f fates) tell() {
	for _, one := range f {
		one.tally.Tell(one.fate)
	}
}
