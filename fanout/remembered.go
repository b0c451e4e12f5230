package fanout

import (
	"sync"
	"time"
)

const (
	// rememberedMost is how many bytes of answers one instance may have Redis remember; at the cap requests with a key are refused with
	// ErrKeys, until the oldest answers are forgotten.
	rememberedMost = 256 << 20
	claimBytes     = 300 // that one costs in Redis without the answer itself, about
)

// remembered is how much this instance has had Redis remember within OnceFor, second by second.
type remembered struct {
	mu sync.Mutex
	// mu guards the following
	bytes   int
	seconds [OnceFor / time.Second]int // by the second modulo their number
	newest  int64                      // second since 1970
}

func (r *remembered) add(now time.Time, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(now)
	r.bytes += bytes
	r.seconds[r.newest%int64(len(r.seconds))] += bytes
}

func (r *remembered) isFull(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(now)
	return r.bytes >= rememberedMost
}

// forgetLocked forgets what is as old as OnceFor.
func (r *remembered) forgetLocked(now time.Time) {
	count := int64(len(r.seconds))
	for r.newest = max(r.newest, now.Unix()-count); r.newest < now.Unix(); {
		r.newest++
		second := &r.seconds[r.newest%count]
		r.bytes -= *second
		*second = 0
	}
}
