package fanout

import (
	"sync"
	"time"
)

const (
	// rememberedMost is how many bytes of answers all instances together may have Redis remember. Each takes
	// its share of it: one of so many as there are. At the cap requests with a key are refused with ErrKeys,
	// until the oldest answers are forgotten.
	rememberedMost = 64 << 20
	claimBytes     = 300 // that one costs in Redis without the answer itself, about
)

// remembered is how much this instance has had Redis remember within OnceFor, second by second.
type remembered struct {
	// static after construction
	elapsed func() time.Duration // since a moment, by the monotonic clock: one that jumps would keep it full, or empty

	mu sync.Mutex
	// mu guards the following
	bytes   int
	seconds [OnceFor / time.Second]int // by the second modulo their number
	newest  int64                      // second since that moment
}

func newRemembered(elapsed func() time.Duration) *remembered { return &remembered{elapsed: elapsed} }

func (r *remembered) add(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked()
	r.bytes += bytes
	r.seconds[r.newest%int64(len(r.seconds))] += bytes
}

// isFull says whether this instance, being one of so many, may have no more remembered.
func (r *remembered) isFull(instances int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked()
	return r.bytes >= rememberedMost/instances
}

// forgetLocked forgets what is as old as OnceFor.
func (r *remembered) forgetLocked() {
	now, count := int64(r.elapsed()/time.Second), int64(len(r.seconds))
	for r.newest = max(r.newest, now-count); r.newest < now; {
		r.newest++
		second := &r.seconds[r.newest%count]
		r.bytes -= *second
		*second = 0
	}
}
