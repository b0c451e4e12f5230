package fanout

import (
	"sync"
	"sync/atomic"
)

// maxRequests is how many requests may wait for replies; more are refused with ErrTooManyRequests. One costs
// some 500 bytes. What clients have caused may take a quarter of them, and what the clients of one user have
// caused a quarter of that. So while an owner can't keep up with mallory, the others still get their reports.
const (
	maxRequests       = 32768
	maxClientRequests = maxRequests / 4
	maxUserRequests   = maxClientRequests / 4
)

// pendingRequests are the requests of this instance that wait for replies. A request goes out in an envelope
// with its number, to one instance or to several, and each reply repeats the number. A reply that nobody
// waits for any more is dropped and counted.
type pendingRequests struct {
	late atomic.Int64 // replies that nobody waited for any more

	mu sync.Mutex
	// mu guards the following
	last    uint64
	pending map[uint64]request
	clients int            // how many of the pending ones clients have caused
	byUser  map[string]int // how many of these the clients of each user have caused
}

type request struct {
	onReply func(reply envelope)
	user    string // whose client has caused it; empty: a backend has
}

// register returns the number of a new request. onReply gets the replies, on the goroutine of a subscription:
// it must not block. user is the user whose client has caused the request; empty if a backend has. When
// nobody waits for replies any more, remove must be called.
func (r *pendingRequests) register(onReply func(reply envelope), user string) (number uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) >= maxRequests {
		return 0, ErrTooManyRequests
	}
	if r.pending == nil {
		r.pending, r.byUser = map[uint64]request{}, map[string]int{}
	}
	if user != "" {
		if r.clients >= maxClientRequests || r.byUser[user] >= maxUserRequests {
			return 0, ErrTooManyRequests
		}
		r.clients++
		r.byUser[user]++
	}
	r.last++
	r.pending[r.last] = request{onReply, user}
	return r.last, nil
}

// registerChan is register with a channel that gets at most so many replies. It has room for all of them.
func (r *pendingRequests) registerChan(replies int) (number uint64, arrived <-chan envelope, err error) {
	came := make(chan envelope, replies)
	number, err = r.register(func(reply envelope) {
		select {
		case came <- reply:
		default: // an instance has replied twice
		}
	}, "")
	return number, came, err
}

// resolve gives a reply to whoever waits for it.
func (r *pendingRequests) resolve(reply envelope) {
	r.mu.Lock()
	request, found := r.pending[reply.request]
	r.mu.Unlock()
	if !found {
		r.late.Add(1)
		return
	}
	request.onReply(reply)
}

func (r *pendingRequests) remove(number uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user := r.pending[number].user; user != "" {
		r.clients--
		if r.byUser[user]--; r.byUser[user] == 0 {
			delete(r.byUser, user)
		}
	}
	delete(r.pending, number)
}

func (r *pendingRequests) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}
