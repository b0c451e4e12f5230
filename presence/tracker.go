package presence

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// DeliveryResult is what becomes of a frame at one socket.
type DeliveryResult int

const (
	Written     DeliveryResult = iota // to the connection; if its client must confirm it, that is still to come
	Acked                             // its client confirmed it
	Dropped                           // its client is too slow: the socket is closed, and what waited for it is lost
	Closed                            // the socket was closed before the frame was written
	Unconfirmed                       // written, and the socket was closed before its client confirmed it
)

// Counts are sockets by what became of one push.
type Counts struct {
	Written    int `json:"written"`
	Acked      int `json:"acked"`
	Dropped    int `json:"dropped"`
	Gone       int `json:"gone"`
	Unanswered int `json:"unanswered"` // by the deadline, or never
}

// Add adds others.
func (c *Counts) Add(o Counts) {
	c.Written += o.Written
	c.Acked += o.Acked
	c.Dropped += o.Dropped
	c.Gone += o.Gone
	c.Unanswered += o.Unanswered
}

// Tracker counts what becomes of one frame at the sockets of one instance. A nil Tracker may be told, and counts nothing.
type Tracker struct {
	// static after construction
	ack  uuid.UUID // the push that clients must confirm; uuid.Nil: it is enough that it is written
	done func(Counts)

	mu sync.Mutex
	// mu guards the following
	counts Counts
	open   int  // sockets of which there is more to come
	over   bool // done was called
	expiry *time.Timer
}

// NewTracker makes a tally that waits until a frame is written to each socket, or, with the id of a push, until each client has confirmed
// it. done is called once, when all is known or the tally expires; it must not block.
func NewTracker(ack uuid.UUID, done func(Counts)) *Tracker {
	return &Tracker{ack: ack, done: done, open: 1} // one for the sending itself, so that it is not done before the last socket is sent to
}

// Ack is the push that clients must confirm, if they must.
func (t *Tracker) Ack() (push uuid.UUID, wanted bool) { return t.ack, t.ack != uuid.Nil }

// Over says whether nobody wants to be told any more.
func (t *Tracker) Over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// add expects the fate of the frame at one more socket.
func (t *Tracker) add() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.open++
	t.mu.Unlock()
}

// sent says that there are no more sockets to add.
func (t *Tracker) sent() {
	if t != nil {
		t.close(func() {})
	}
}

// Report tells the fate of the frame at one socket.
func (t *Tracker) Report(fate DeliveryResult) {
	if t == nil {
		return
	}
	switch fate {
	case Written:
		if _, wanted := t.Ack(); wanted {
			t.mu.Lock()
			t.counts.Written++
			t.mu.Unlock()
			return
		}
		t.close(func() { t.counts.Written++ })
	case Acked:
		t.close(func() { t.counts.Acked++ })
	case Dropped:
		t.close(func() { t.counts.Dropped++ })
	case Closed:
		t.close(func() { t.counts.Gone++ })
	case Unconfirmed:
		t.close(func() { t.counts.Unanswered++ })
	}
}

// close counts one that is no longer open.
func (t *Tracker) close(count func()) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	count()
	t.open--
	t.over = t.open == 0
	over, counts := t.over, t.counts
	if over && t.expiry != nil {
		t.expiry.Stop()
	}
	t.mu.Unlock()
	if over {
		t.done(counts)
	}
}

// ExpireAfter lets the tally expire if it is not done in time.
func (t *Tracker) ExpireAfter(d time.Duration) {
	t.mu.Lock()
	t.expiry = time.AfterFunc(d, t.Expire)
	t.mu.Unlock()
}

// Expire ends the tally: what is still open is unanswered.
func (t *Tracker) Expire() {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.over = true
	t.counts.Unanswered += t.open
	if t.expiry != nil {
		t.expiry.Stop()
	}
	counts := t.counts
	t.mu.Unlock()
	t.done(counts)
}
