package fanout

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

// Receiver hands what other instances send to this one's sockets. Messages are taken apart where they come in. Pushes and kicks go
// to the worker of their user, emits to the emitter; all else is quick and done at once.
type Receiver struct {
	// static after construction
	instance string
	redis    presence.Redis
	keys     presence.Keys
	sharded  bool // SSUBSCRIBE, for a Cluster
	sockets  *presence.Sockets
	mirror   *presence.Mirror
	dial     func() (rueidis.Client, error)
	pause    time.Duration // between looks at the heartbeat
	log      *slog.Logger

	calls calls
	ears  []ear // one for each shard

	workers  []*worker
	seed     maphash.Seed // of users, to find their worker
	room     room         // of all workers
	emitter  *emitter
	asks     asks
	repliers []*replier     // one for each shard: one that hangs holds up no other
	replying sync.WaitGroup // for audits, which take their time
	auditing atomic.Int64   // of them, at most maxAudits

	missing atomic.Int64 // shards never subscribed yet
	ready   chan struct{}

	// Dropped may be read at any time.
	Dropped Drops
}

const (
	resubscribe = 50 * time.Millisecond  // before a lost subscription is tried again: short, for pushes pass by meanwhile
	redial      = 250 * time.Millisecond // before Redis, out of reach, is tried again
)

// Drops counts what a Receiver could not deliver, by reason.
type Drops struct {
	Malformed atomic.Int64 // messages, from the first envelope that could not be read on
	Overflow  atomic.Int64 // pushes to a user for whom too much waited, and kicks when all room was taken
	Emits     atomic.Int64 // emits, and kicks of one socket, that found no room in the emitter's queue
	Late      atomic.Int64 // messages that came after their successors
	Unknown   atomic.Int64 // envelopes of a kind that this version does not know
	Strays    atomic.Int64 // envelopes for users without a socket here
	Questions atomic.Int64 // that found too many before them
	Replies   atomic.Int64 // to questions, which found too many before them, or Redis out of reach
}

// ReceiverOptions are what a Receiver needs. All are required.
type ReceiverOptions struct {
	Instance string
	Redis    presence.Redis
	Sockets  *presence.Sockets
	Mirror   *presence.Mirror
	Dial     func() (rueidis.Client, error) // makes a client for subscriptions alone: a stalled one must stall nothing else
	Log      *slog.Logger
}

// NewReceiver makes a receiver. It does nothing before Run.
func NewReceiver(o ReceiverOptions) *Receiver {
	r := &Receiver{
		instance: o.Instance, redis: o.Redis, keys: o.Redis.Keys, sharded: o.Redis.Sharded,
		sockets: o.Sockets, mirror: o.Mirror, dial: o.Dial, log: o.Log,
		pause: 3 * o.Redis.RenewEvery(),
		ears:  make([]ear, o.Redis.Keys.Shards()),
		seed:  maphash.MakeSeed(),
		ready: make(chan struct{}),
	}
	for range runtime.GOMAXPROCS(0) { // no more can write at once: a write never waits
		r.workers = append(r.workers, newWorker(&r.room, r.begin, r.finish))
	}
	for range r.ears {
		r.repliers = append(r.repliers, newReplier(o.Redis, o.Log, &r.Dropped.Replies))
	}
	r.emitter = newEmitter(o.Sockets)
	r.missing.Store(int64(len(r.ears)))
	return r
}

// Ready is closed when every subscription has been confirmed for the first time.
func (r *Receiver) Ready() <-chan struct{} { return r.ready }

// Hears says whether the subscription to emits is up.
func (r *Receiver) Hears() bool { return r.ears[0].subscribed.Load() }

// NotReadyReason says why this instance does not get what others send it, although they believe it; empty if it does.
func (r *Receiver) NotReadyReason() string {
	for shard := range r.ears {
		switch ear := &r.ears[shard]; {
		case ear.deaf.Load():
			return fmt.Sprintf("deaf: its heartbeat does not come back through its own channel in shard %d", shard)
		case !ear.subscribed.Load() && r.mirror.LeaseHeld(shard):
			return fmt.Sprintf("not subscribed to its own channel in shard %d", shard)
		}
	}
	return ""
}

// LateReplies counts replies for which nobody waited any more.
func (r *Receiver) LateReplies() int64 { return r.asks.late.Load() }

// Queued is how many pushes and kicks wait for sockets here, or are being handed to them.
func (r *Receiver) Queued() int { return int(r.room.jobs.Load()) }

// Run receives until the context ends.
func (r *Receiver) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer r.replying.Wait()
	defer work.Wait()
	for _, worker := range r.workers {
		work.Go(func() { worker.run(ctx) })
	}
	work.Go(func() { r.emitter.run(ctx) })
	for _, replier := range r.repliers {
		work.Go(func() { replier.run(ctx) })
	}
	for ctx.Err() == nil {
		if err := r.listen(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("subscribe", "error", err)
			pause(ctx, redial)
		}
	}
}
