package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

// receiverQueue and receiverBytes are the most that may wait for the worker. At the cap a message is dropped and counted: to wait would
// stall the connection, and with it every other message.
const (
	receiverQueue = 8192
	receiverBytes = 64 << 20
)

// Receiver hands what other instances send to this one's sockets.
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

	queue  chan rueidis.PubSubMessage // capacity receiverQueue; never closed
	queued atomic.Int64               // bytes of the messages in it
	calls  calls                      // owned by the worker
	ears   []ear                      // one for each shard

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
	Overflow  atomic.Int64 // messages that found no room in the queue, or emits in the emitter's
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
		instance: o.Instance, redis: o.Redis, keys: o.Redis.Keys, sharded: o.Redis.Publish == "SPUBLISH",
		sockets: o.Sockets, mirror: o.Mirror, dial: o.Dial, log: o.Log,
		pause: 3 * o.Redis.RenewEvery(),
		queue: make(chan rueidis.PubSubMessage, receiverQueue),
		ears:  make([]ear, o.Redis.Keys.Shards()),
		ready: make(chan struct{}),
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

// Trouble says why this instance does not get what others send it, although they believe it; empty if it does.
func (r *Receiver) Trouble() string {
	for shard := range r.ears {
		switch ear := &r.ears[shard]; {
		case ear.deaf.Load():
			return fmt.Sprintf("deaf: its heartbeat does not come back through its own channel in shard %d", shard)
		case !ear.subscribed.Load() && r.mirror.Believed(shard):
			return fmt.Sprintf("not subscribed to its own channel in shard %d", shard)
		}
	}
	return ""
}

// LateReplies counts replies for which nobody waited any more.
func (r *Receiver) LateReplies() int64 { return r.asks.late.Load() }

// Queued is how many messages wait for the worker.
func (r *Receiver) Queued() int { return len(r.queue) }

// Run receives until the context ends.
func (r *Receiver) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer r.replying.Wait()
	defer work.Wait()
	work.Go(func() { r.work(ctx) })
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

// enqueue runs on the connection's own goroutine: it must be quick, and never call Redis.
func (r *Receiver) enqueue(message rueidis.PubSubMessage) {
	size := int64(len(message.Message))
	if r.queued.Add(size) <= receiverBytes {
		select {
		case r.queue <- message:
			runtime.Gosched() // the worker first: what comes meanwhile is read together
			return
		default:
		}
	}
	r.queued.Add(-size)
	r.Dropped.Overflow.Add(1)
}

// work hands messages to sockets, one after the other: what one instance sends to a user arrives in order. Emits go on to the emitter.
func (r *Receiver) work(ctx context.Context) {
	for {
		select {
		case message := <-r.queue:
			r.queued.Add(-int64(len(message.Message)))
			r.handle(ctx, message)
		case <-ctx.Done():
			return
		}
	}
}

// handle never fails: what can't be read is counted, and the next message is another's.
func (r *Receiver) handle(ctx context.Context, message rueidis.PubSubMessage) {
	if message.Message == presence.Heartbeat {
		r.heartbeat(message.Channel)
		return
	}
	var shared presence.Message // what envelopes without a frame of their own have
	for rest := []byte(message.Message); len(rest) > 0; {
		var e envelope
		var err error
		e, rest, err = cutEnvelope(rest)
		if e.kind == kindPushShared {
			if e.kind, e.frame, e.shared = kindPush, shared.Frame, shared.Shared; e.shared == nil {
				err = errEnvelope
			}
		}
		if err != nil {
			if count := r.Dropped.Malformed.Add(1); count&(count-1) == 0 { // the 1st, 2nd, 4th, …: it may rain them
				r.log.Warn("dropped a message", "so far", count, "channel", message.Channel, "bytes", len(message.Message), "error", err)
			}
			return
		}
		if e.kind == kindCall && r.calls.isLate(message.Channel, e) {
			r.Dropped.Late.Add(1)
			return
		}
		if e.kind == kindFrame {
			shared = presence.Message{Frame: slices.Clone(e.frame), Shared: &presence.Shared{}} // a copy, for it may wait without the rest
			continue
		}
		r.deliver(ctx, e)
	}
}

func (r *Receiver) deliver(ctx context.Context, e envelope) {
	switch e.kind {
	case kindPush, kindKickUser:
		r.deliverToUser(e)
	case kindEmitAll, kindEmitAuthenticated:
		if e.sender == r.instance {
			return // served when it was sent
		}
		to := presence.Everybody
		if e.kind == kindEmitAuthenticated {
			to = presence.Authenticated
		}
		if !r.emitter.enqueue(&presence.Emit{To: to, Message: presence.Message{Frame: e.frame, Tally: r.tally(0, e)}}) {
			r.Dropped.Overflow.Add(1)
		}
	case kindKickSocket:
		if e.sender != r.instance {
			r.sockets.CloseSocket(e.exclude, CloseKicked, string(e.frame), r.tally(0, e))
		}
	case kindReply:
		r.asks.arrive(e)
	case kindAudit:
		r.audit(ctx, e)
	case kindCall: // it was looked at before
	default:
		r.Dropped.Unknown.Add(1)
	}
}

func (r *Receiver) deliverToUser(e envelope) {
	shard, sockets := r.keys.ShardOf(e.user), r.sockets.Of(e.user)
	if len(sockets) == 0 {
		r.Dropped.Strays.Add(1)
		r.mirror.Again(e.user) // Redis believes that there are sockets
		if e.ask != 0 {
			r.reply(shard, e, ownerReply{stray: true}.append(nil))
		}
		return
	}
	tally := r.tally(shard, e)
	if e.kind == kindKickUser {
		sockets.Close(e.exclude, CloseKicked, string(e.frame), tally)
	} else {
		sockets.Deliver(e.exclude, presence.Message{Frame: e.frame, Shared: e.shared, Tally: tally})
	}
}

// tally makes a tally that replies with its counts, if the sender waits for a reply.
func (r *Receiver) tally(shard int, e envelope) *presence.Tally {
	if e.ask == 0 {
		return nil
	}
	tally := presence.NewTally(e.id, func(counts presence.Counts) {
		r.reply(shard, e, ownerReply{counts: counts}.append(nil))
	})
	tally.ExpireAfter(e.within)
	return tally
}
