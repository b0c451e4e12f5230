package presence

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	mirrorBatch = 512                    // users a call: keeps Redis busy for 2 ms; more is hardly faster
	backoffMin  = 50 * time.Millisecond  // after the first error
	backoffMax  = 1 * time.Second        // after many
	endTimeout  = 500 * time.Millisecond // for the last calls of an instance that leaves
)

// leaseState is where a shard's lease is in its life. doc.go has the picture.
type leaseState int32

const (
	leaseStarting  leaseState = iota // there was no lease yet
	leaseHeld                        // the lease is open, and Redis has all local users
	leaseLost                        // Redis lost the lease: one must be opened in a new epoch
	leaseRefilling                   // opened in a new epoch: Redis must be told of all local users again
)

// shard mirrors the local users of one shard.
type shard struct {
	// static after construction
	index  int
	mirror *Mirror

	// owned by the run loop
	incarnation      incarnation
	version          int64    // mirror writes that Redis has confirmed under this incarnation's lease
	versionUncertain bool     // the last write may have got through: the version is read before the next one
	superseded       []string // earlier incarnations, to be fenced when all users are written under this one
	failures         int      // in a row

	// written by the run loop, read by all
	state        atomic.Int32           // a leaseState
	current      atomic.Pointer[string] // the incarnation that has a lease; nil: none had one yet
	trustedUntil atomic.Int64           // when trust in the lease ends, ns since the mirror was made
	lossNoticed  atomic.Int64           // when Redis was last found to have lost the lease; 0: never
	full         atomic.Bool            // Redis had no room when it was last asked to write
	sweeper      atomic.Bool            // whether this incarnation must sweep, as of the last renewal

	heartbeats atomic.Int64 // sent since they were last asked for
	sweeping   atomic.Bool  // a sweep is under way
	sweeps     sync.WaitGroup

	writes writeBehind
}

func newShard(index int, m *Mirror) *shard {
	s := &shard{index: index, mirror: m, incarnation: incarnation{m.instance, 1}}
	s.writes.init()
	return s
}

func (s *shard) lease() leaseState { return leaseState(s.state.Load()) }

// currentIncarnation is the incarnation that has the lease; empty before there is one.
func (s *shard) currentIncarnation() string {
	if current := s.current.Load(); current != nil {
		return *current
	}
	return ""
}

// markAllDirty marks all local users, so that Redis is told of them again.
func (s *shard) markAllDirty() {
	users := s.mirror.sockets.appendUsers(nil, s.index)
	s.writes.markAll(users, dirtyUser{mirroredBefore: true})
}

// loss is what the shard knows of the last time that Redis lost its data.
func (s *shard) loss() dataLoss {
	state := s.lease()
	loss := dataLoss{
		refilling:  state == leaseLost || state == leaseRefilling,
		renewEvery: s.mirror.redis.RenewEvery(),
		grace:      s.mirror.redis.Grace,
	}
	if noticed := s.lossNoticed.Load(); noticed > 0 {
		loss.noticed = s.mirror.started.Add(time.Duration(noticed))
	}
	return loss
}

func (s *shard) recoveringFromLoss() bool { return s.loss().recovering(time.Now()) }

// trust trusts the lease for its lifetime, counted from before the renewal was sent. So the local clock is
// only used to trust a lease for less long than Redis does.
func (s *shard) trust(renewalSent time.Time) {
	s.trustedUntil.Store(int64(renewalSent.Sub(s.mirror.started) + s.mirror.redis.Lease))
}

// trusted is how much longer the lease certainly holds; not above 0: it may have expired.
func (s *shard) trusted(now time.Time) time.Duration {
	return time.Duration(s.trustedUntil.Load()) - now.Sub(s.mirror.started)
}
