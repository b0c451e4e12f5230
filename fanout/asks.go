package fanout

import (
	"sync"
	"sync/atomic"
)

// maxAsks is how many questions may wait for replies; more are refused with ErrAsking. One costs some 500 bytes.
const maxAsks = 32768

// asks are the questions of this instance that wait for replies. A question goes to the channels of the instances that are asked, and
// they reply to the asker's; what is replied too late is dropped and counted.
type asks struct {
	late atomic.Int64 // replies that nobody waited for any more

	mu sync.Mutex
	// mu guards the following
	last uint64
	open map[uint64]func(sender string, frame []byte)
}

// begin gives a question its number. take gets the replies, one after the other, on the receiver's goroutine: it must not block. end
// must be called.
func (a *asks) begin(take func(sender string, frame []byte)) (ask uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= maxAsks {
		return 0, ErrAsking
	}
	if a.open == nil {
		a.open = map[uint64]func(string, []byte){}
	}
	a.last++
	a.open[a.last] = take
	return a.last, nil
}

func (a *asks) end(ask uint64) {
	a.mu.Lock()
	delete(a.open, ask)
	a.mu.Unlock()
}

// arrive hands a reply to who asked.
func (a *asks) arrive(e envelope) {
	a.mu.Lock()
	take := a.open[e.ask]
	a.mu.Unlock()
	if take == nil {
		a.late.Add(1)
		return
	}
	take(e.sender, e.frame)
}
