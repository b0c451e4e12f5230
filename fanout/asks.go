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
	clients int // of the open ones, those about answers to clients
}

// ask is a question that waits for replies.
type ask struct {
	take       func(sender string, frame []byte)
	fromClient bool
}

// begin gives a question its number. take gets the replies, on the subscriptions' goroutines: it must not block. end must be called.
func (a *asks) begin(take func(sender string, frame []byte), fromClient bool) (number uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= maxAsks || fromClient && a.clients >= maxClientAsks {
		return 0, ErrAsking
	}
	if a.open == nil {
		a.open = map[uint64]ask{}
	}
	if fromClient {
		a.clients++
	}
	a.last++
	a.open[a.last] = ask{take, fromClient}
	return a.last, nil
}

func (a *asks) end(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[number].fromClient {
		a.clients--
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
