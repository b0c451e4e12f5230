package presence

import (
	"fmt"
	"time"
)

// Stats are numbers for operators.
type Stats struct {
	Dirty int           // users whose count must be written
	Lag   time.Duration // for how long the oldest change has not been in Redis
	Trust time.Duration // until the first lease of ours may expire; not above 0: it may have expired
	Full  bool          // Redis has no room for more

	Errors     int64 // failed calls of Redis since the start
	Remirrors  int64 // times since the start that Redis had lost its data, and a shard was mirrored again
	Unreadable int64 // times since the start that an entry, lease or record could not be read
}

func (m *Mirror) Stats() Stats {
	now := time.Now()
	stats := Stats{
		Trust:      m.redis.Lease,
		Errors:     m.errors.Load(),
		Remirrors:  m.remirrors.Load(),
		Unreadable: m.unreadable.Load(),
	}
	for _, s := range m.shards {
		dirty, lag := s.writes.lag(now)
		stats.Dirty += dirty
		stats.Lag = max(stats.Lag, lag)
		stats.Full = stats.Full || s.full.Load()
		stats.Trust = min(stats.Trust, s.trusted(now))
	}
	return stats
}

// LeaseTrusted says whether the lease in a shard certainly holds: then other instances believe this one.
func (m *Mirror) LeaseTrusted(shard int) bool { return m.shards[shard].trusted(time.Now()) > 0 }

// NotReadyReason says why other instances do not believe this one now, or what will soon go wrong. It is
// empty if all is well.
func (m *Mirror) NotReadyReason() string {
	full := false
	for shard, s := range m.shards {
		switch trusted := m.LeaseTrusted(shard); {
		case !trusted && s.full.Load():
			return leaseExpiredReason(shard, "full (maxmemory)")
		case !trusted:
			return leaseExpiredReason(shard, "out of reach")
		}
		full = full || s.full.Load()
	}
	if full {
		return "Redis is full (maxmemory): presence and pushes go on, requests with an Idempotency-Key are " +
			"refused; give it more memory, or remove what else it holds"
	}
	return ""
}

func leaseExpiredReason(shard int, redisIs string) string {
	const reason = "its lease in shard %d has expired because Redis is %s: " +
		"other instances do not find its sockets"
	return fmt.Sprintf(reason, shard, redisIs)
}

// LiveInstances is how many instances had a live lease when ours was last renewed. At least one.
func (m *Mirror) LiveInstances() int { return int(max(1, m.live.Load())) }
