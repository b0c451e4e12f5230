package fanout

import (
	"sync"
	"sync/atomic"
)

// maxAsks is how many questions may wait for replies; more are refused with ErrAsking. One costs some 500 bytes.
// A quarter of them may be about answers to clients, and a quarter of those about one user: an owner who can't
// keep up with mallory's answers must not keep alice's from being asked about.
const (
	maxAsks       = 32768
	maxClientAsks = maxAsks / 4
	userAsks      = maxClientAsks / 4
)

// asks are the questions of this instance that wait for replies. A question goes to the channels of the instances that are asked, and
// they reply to the asker's; what is replied too late is dropped and counted.
type asks struct {
	late atomic.Int64 // replies that nobody waited for any more

	mu sync.Mutex
	// mu guards the following
	last    uint64
	open    map[uint64]ask
	clients int            // of the open ones, those about answers to clients
	byUser  map[string]int // of those, by user
}

// ask is a question that waits for replies.
type ask struct {
	take func(sender string, frame []byte)
	user string // whose clients caused it; empty: a backend did
}

// begin gives a question its number. take gets the replies, on the subscriptions' goroutines: it must not block. user is the one whose
// clients caused it; empty if a backend did. end must be called.
func (a *asks) begin(take func(sender string, frame []byte), user string) (number uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= maxAsks || user != "" && (a.clients >= maxClientAsks || a.byUser[user] >= userAsks) {
		return 0, ErrAsking
	}
	if a.open == nil {
		a.open, a.byUser = map[uint64]ask{}, map[string]int{}
	}
	if user != "" {
		a.clients++
		a.byUser[user]++
	}
	a.last++
	a.open[a.last] = ask{take, user}
	return a.last, nil
}

func (a *asks) end(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if user := a.open[number].user; user != "" {
		a.clients--
		if a.byUser[user]--; a.byUser[user] == 0 {
			delete(a.byUser, user)
		}
	}
	delete(a.open, number)
}

// arrive hands a reply to who asked.
func (a *asks) arrive(e envelope) {
	a.mu.Lock()
	take := a.open[e.ask].take
	a.mu.Unlock()
	if take == nil {
		a.late.Add(1)
		return
	}
	take(e.sender, e.frame)
}
