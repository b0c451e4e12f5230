package fanout

import (
	"context"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

// Bus sends pushes, emits and kicks to the sockets of all instances, and hands what other instances send to
// the sockets of its own. Its two halves start and stop one after the other: Listen must run before an
// instance opens its leases, because others may push to it from then on, and until it has ended them. Run
// sends what this instance's callers push; it stops first.
type Bus struct {
	// static after construction
	instance string
	redis    presence.Redis
	sockets  *presence.Sockets
	mirror   *presence.Mirror
	meter    Meter
	log      *slog.Logger

	// sending
	routers  []*shardRouter // one for each shard
	requests pendingRequests

	// receiving
	subscriptions *subscriptions
	guard         sequenceGuard
	workers       []*worker
	seed          maphash.Seed // of users, to find their worker
	room          room         // of all workers
	emitter       *emitter
	replies       []*replyBatcher // one for each shard: one that hangs holds up no other
	audits        sync.WaitGroup  // that other instances asked for
	auditing      atomic.Int64    // how many are under way, at most maxAudits

	// Dropped may be read at any time.
	Dropped Drops
}

// Options are what a Bus needs. All are required but the Meter.
type Options struct {
	Instance string
	Redis    presence.Redis
	Sockets  *presence.Sockets
	Mirror   *presence.Mirror
	// Dial makes a client that is used for subscriptions alone: if it stalls, nothing else does.
	Dial  func() (rueidis.Client, error)
	Meter Meter // nil: nobody measures
	Log   *slog.Logger
}

// Meter is told what a Bus does. Its methods must be quick, and may be called from any goroutine.
type Meter interface {
	// Batch is told of each call of push.lua: how many pushes shared it, and how long it took.
	Batch(pushes int, took time.Duration, err error)
	// Push is told what became of each push, and how long its caller waited for that.
	Push(outcome Outcome, wait Wait, took time.Duration)
}

// Drops counts what a Bus received and could not deliver, by reason.
type Drops struct {
	Malformed atomic.Int64 // messages, from the first envelope that could not be read on
	Overflow  atomic.Int64 // pushes to a user for whom too much waited, and kicks when all room was taken
	Emits     atomic.Int64 // emits, and kicks of one socket, that found no room in the emitter's queue
	Late      atomic.Int64 // messages of a batch that came after a later batch of the same sender
	Unknown   atomic.Int64 // envelopes of a kind that this version does not know
	NoSocket  atomic.Int64 // pushes and kicks for users without a socket here
	Audits    atomic.Int64 // requests for an audit that found too many under way
	Replies   atomic.Int64 // replies of ours that found no room, or could not be sent
}

// NewBus makes a bus. It does nothing before Listen and Run.
func NewBus(o Options) *Bus {
	b := &Bus{
		instance: o.Instance, redis: o.Redis, sockets: o.Sockets, mirror: o.Mirror,
		meter: o.Meter, log: o.Log, seed: maphash.MakeSeed(), emitter: newEmitter(o.Sockets),
	}
	b.subscriptions = newSubscriptions(o, b.receive)
	for shard := range o.Redis.Keys.Shards() {
		b.routers = append(b.routers, newShardRouter(b, shard))
		b.replies = append(b.replies, newReplyBatcher(o.Redis, o.Log, &b.Dropped.Replies))
	}
	for range runtime.GOMAXPROCS(0) { // more could not write at the same time, because a write never waits
		b.workers = append(b.workers, newWorker(&b.room, b.start, b.finish))
	}
	return b
}

// Run routes pushes until the context ends. It then routes what is still queued, and returns. What comes
// later gets ErrClosing.
func (b *Bus) Run(ctx context.Context) {
	var routing sync.WaitGroup
	for _, r := range b.routers {
		routing.Go(func() { r.run(ctx) })
	}
	routing.Wait()
}

// Listen receives what other instances send until the context ends.
func (b *Bus) Listen(ctx context.Context) {
	var parts sync.WaitGroup
	for _, worker := range b.workers {
		parts.Go(func() { worker.run(ctx) })
	}
	parts.Go(func() { b.emitter.run(ctx) })
	for _, replies := range b.replies {
		parts.Go(func() { replies.run(ctx) })
	}
	b.subscriptions.run(ctx)
	parts.Wait()
	b.audits.Wait()
}

// Ready is closed when every subscription has been confirmed for the first time.
func (b *Bus) Ready() <-chan struct{} { return b.subscriptions.ready }

// NotReadyReason says why this instance does not get what others send it, although they trust its lease;
// empty if it does get it.
func (b *Bus) NotReadyReason() string { return b.subscriptions.notReadyReason() }

// Waiting is how many pushes wait for Redis, and how many requests wait for replies of other instances.
func (b *Bus) Waiting() (pushes, requests int) {
	for _, r := range b.routers {
		pushes += r.queue.len()
	}
	return pushes, b.requests.len()
}

// Queued is how many pushes and kicks of other instances wait for sockets here, or are being handed to them.
func (b *Bus) Queued() int { return int(b.room.jobs.Load()) }

// LateReplies counts replies for which nobody waited any more.
func (b *Bus) LateReplies() int64 { return b.requests.late.Load() }

func deadline(ctx context.Context) time.Time {
	if at, ok := ctx.Deadline(); ok {
		return at
	}
	return time.Now().Add(MaxWait)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
