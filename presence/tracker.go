package presence

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// DeliveryResult is what became of a frame at one socket.
type DeliveryResult int

const (
	Written     DeliveryResult = iota // to the connection; if the client must confirm it, more follows
	Acked                             // the client confirmed it
	Dropped                           // the client is too slow: the socket is closed, what waited is lost
	Closed                            // the socket was closed before the frame was written
	Unconfirmed                       // written, but the socket was closed before the client confirmed it
)

// Counts are numbers of sockets, by what became of one push there.
type Counts struct {
	Written    int `json:"written"`
	Acked      int `json:"acked"`
	Dropped    int `json:"dropped"`
	Gone       int `json:"gone"`       // closed before the frame was written
	Unanswered int `json:"unanswered"` // by the deadline, or never
}

func (c *Counts) Add(o Counts) {
	c.Written += o.Written
	c.Acked += o.Acked
	c.Dropped += o.Dropped
	c.Gone += o.Gone
	c.Unanswered += o.Unanswered
}

// Tracker counts what becomes of one frame at the sockets of one instance. Whoever sends the frame adds a
// socket before each send; the connection under it reports the result. On a nil Tracker all of this does
// nothing.
type Tracker struct {
	// static after construction
	ack    uuid.UUID // the push that clients must confirm; uuid.Nil: it is enough that the frame is written
	onDone func(Counts)

	mu sync.Mutex
	// mu guards the following
	counts  Counts
	pending int  // results that are still to come, and one for the sending itself
	done    bool // onDone was called, or is about to be
	expiry  *time.Timer
}

// NewTracker makes a tracker that is done when the frame is written to each socket or, with the id of a push,
// when each client has confirmed that push. It then calls onDone, once, which must not block. It is also done
// when it expires.
func NewTracker(ack uuid.UUID, onDone func(Counts)) *Tracker {
	return &Tracker{ack: ack, onDone: onDone, pending: 1} // 1 until sent is called
}

// Ack is the push that clients must confirm, if they must.
func (t *Tracker) Ack() (push uuid.UUID, wanted bool) { return t.ack, t.ack != uuid.Nil }

// Done says whether the tracker is done: no result is of interest any more.
func (t *Tracker) Done() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// Report tells what became of the frame at one socket.
func (t *Tracker) Report(result DeliveryResult) {
	t.update(func() {
		switch result {
		case Written:
			t.counts.Written++
		case Acked:
			t.counts.Acked++
		case Dropped:
			t.counts.Dropped++
		case Closed:
			t.counts.Gone++
		case Unconfirmed:
			t.counts.Unanswered++
		}
		if _, wanted := t.Ack(); result != Written || !wanted {
			t.pending--
		}
	})
}

// add says that the frame is about to be sent to one more socket.
func (t *Tracker) add() { t.update(func() { t.pending++ }) }

// sent says that there are no more sockets to add.
func (t *Tracker) sent() { t.update(func() { t.pending-- }) }

// ExpireAfter lets the tracker expire if it is not done in time.
func (t *Tracker) ExpireAfter(d time.Duration) {
	t.mu.Lock()
	t.expiry = time.AfterFunc(d, t.Expire)
	t.mu.Unlock()
}

// Expire ends the tracker: sockets whose results are still to come count as unanswered.
func (t *Tracker) Expire() {
	t.update(func() {
		t.counts.Unanswered += t.pending
		t.pending = 0
	})
}

// update changes the counts, unless the tracker is done, and ends it if nothing is pending any more. On a nil
// Tracker it does nothing.
func (t *Tracker) update(change func()) {
	if t == nil {
		return
	}
	t.mu.Lock()
	if t.done {
		t.mu.Unlock()
		return
	}
	change()
	t.done = t.pending == 0
	done, counts := t.done, t.counts
	if done && t.expiry != nil {
		t.expiry.Stop()
	}
	t.mu.Unlock()
	if done {
		t.onDone(counts)
	}
}
