package fanout

import (
	"sync"
	"sync/atomic"
)

// maxRequests is how many requests may wait for replies; more are refused with ErrAsking. One costs some 500
// bytes. A quarter of them may be about what clients have caused, and a quarter of those about one user: an
// owner that cannot keep up with mallory must not keep alice from being asked about.
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
	clients int            // of the pending ones, how many clients have caused
	byUser  map[string]int // of those, how many are about each user
}

type request struct {
	onReply func(reply envelope)
	user    string // whose clients have caused it; empty: a backend has
}

// register returns the number of a new request. onReply gets the replies, on the goroutine of a subscription:
// it must not block. user is the one whose clients have caused the request; empty if a backend has. When
// nobody waits for replies any more, remove must be called.
func (r *pendingRequests) register(onReply func(reply envelope), user string) (number uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) >= maxRequests {
		return 0, ErrAsking
	}
	if r.pending == nil {
		r.pending, r.byUser = map[uint64]request{}, map[string]int{}
	}
	if user != "" {
		if r.clients >= maxClientRequests || r.byUser[user] >= maxUserRequests {
			return 0, ErrAsking
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
