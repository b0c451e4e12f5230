package idempotency

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxBytes is how many bytes of results all instances together may store at once. As many again may
	// follow within each KeepFor, so Redis never holds more than twice as much. Each instance has an equal
	// share.
	maxBytes   = 64 << 20
	claimBytes = 300 // about what a claim takes in Redis, and what a result takes beside its own bytes
)

// quota limits the bytes that this instance stores in Redis. The time is a parameter, and never goes back.
type quota struct{ limiter *rate.Limiter } // a token is a byte

func newQuota() *quota { return &quota{rate.NewLimiter(perSecond(maxBytes), maxBytes)} }

// isFull reports whether this instance, one of so many, has to refuse requests with a key.
func (q *quota) isFull(now time.Time, instances int) bool {
	share := maxBytes / instances
	q.limiter.SetLimitAt(now, perSecond(share))
	q.limiter.SetBurstAt(now, share)
	return q.limiter.TokensAt(now) <= 0
}

// spend counts bytes that are stored. They may be more than are left: how many they are is known too late to
// refuse the request.
func (q *quota) spend(now time.Time, bytes int) {
	q.limiter.ReserveN(now, min(bytes, q.limiter.Burst()))
}

func perSecond(share int) rate.Limit { return rate.Limit(share) / rate.Limit(KeepFor.Seconds()) }
