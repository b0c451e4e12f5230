package fanout

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/presence"
)

// Push is a frame for all sockets of one user.
type Push struct {
	User    string
	Exclude uuid.UUID        // a socket that must not get it; uuid.Nil: none
	Frame   []byte           // nobody may change it
	Shared  *presence.Shared // of pushes that begin together and have the same frame; nil: this one has its own

	Wait Wait
	ID   uuid.UUID // of the push, for clients to confirm; needed for Acked alone

	FromClient bool // a client has caused it: it takes no room of what backends push

	kick bool // close the sockets instead; the frame is the reason
}

// Outcome is what became of a push.
type Outcome struct {
	State     presence.State  // of the user, as the routing saw it; Unknown if Redis could not be asked
	Instances int             // that took it
	Partial   bool            // these took it, but Redis was out of reach: there may be more
	Sockets   presence.Counts // if the caller waited for more than the routing
	Err       error           // nobody took it, or it is not known who: ErrUnreachable, ErrBusy, ErrAsking, ErrClosing or a context's error
}

// Errors of an Outcome.
var (
	ErrUnreachable = errors.New("fanout: redis is out of reach") // or can't know, for it has lost what it held
	ErrBusy        = errors.New("fanout: too many pushes are waiting for redis")
	ErrAsking      = errors.New("fanout: too many questions are waiting for replies")
	ErrClosing     = errors.New("fanout: this instance is shutting down")
)

// Router takes pushes and emits and brings them to the instances that own the sockets.
type Router struct {
	// static after construction
	instance string
	redis    presence.Redis
	sockets  *presence.Sockets
	receiver *Receiver
	meter    Meter
	log      *slog.Logger
	lanes    []*lane

	loops sync.WaitGroup
}

// Meter is told what a Router does. Its methods must be quick, and may be called from any goroutine.
type Meter interface {
	// Batch is told of each call of push.lua: how many pushes shared it, and how long it took.
	Batch(pushes int, took time.Duration, err error)
	// Push is told what became of each push, and how long its caller waited for that.
	Push(outcome Outcome, wait Wait, took time.Duration)
}

// RouterOptions are what a Router needs. All are required but the Meter.
type RouterOptions struct {
	Instance string
	Redis    presence.Redis
	Sockets  *presence.Sockets
	Receiver *Receiver
	Meter    Meter // nil: nobody measures
	Log      *slog.Logger
}

// NewRouter makes a router. It takes pushes while it runs.
func NewRouter(o RouterOptions) *Router {
	r := &Router{instance: o.Instance, redis: o.Redis, sockets: o.Sockets, receiver: o.Receiver, meter: o.Meter, log: o.Log}
	for shard := range o.Redis.Keys.Shards() {
		r.lanes = append(r.lanes, newLane(shard, r))
	}
	return r
}

// Waiting is how many pushes are queued, and how many questions wait for replies.
func (r *Router) Waiting() (pushes, questions int) {
	for _, l := range r.lanes {
		l.mu.Lock()
		pushes += len(l.queue)
		l.mu.Unlock()
	}
	r.receiver.asks.mu.Lock()
	defer r.receiver.asks.mu.Unlock()
	return pushes, len(r.receiver.asks.open)
}

// Run routes until the context ends. It then routes what is still queued, and returns; whatever comes later gets ErrClosing.
func (r *Router) Run(ctx context.Context) {
	for _, l := range r.lanes {
		r.loops.Go(func() { l.run(ctx) })
	}
	r.loops.Wait()
}

func deadline(ctx context.Context) time.Time {
	if at, ok := ctx.Deadline(); ok {
		return at
	}
	return time.Now().Add(MaxWait)
}

// MaxWait is how long the caller of a push may wait for sockets and clients.
const MaxWait = 5 * time.Second

// Begin sends pushes on their way, behind all that this instance took earlier for the same users, and does not wait. Until a moment
// owners may take to tell what became of them; what is not even sent by then is given up. The ticket must be waited with: nobody else
// looks at the outcomes.
func (r *Router) Begin(pushes []Push, until time.Time) *Ticket {
	t := newTicket(pushes, until)
	t.meter = r.meter
	for i := range t.orders {
		o := &t.orders[i]
		r.lanes[r.redis.Keys.ShardOf(o.push.User)].enqueue(o)
	}
	return t
}

// publish makes the command that sends a message.
func publish(redis presence.Redis, channel string, message []byte) rueidis.Completed {
	b := redis.Client.B()
	if redis.Sharded {
		return b.Spublish().Channel(channel).Message(rueidis.BinaryString(message)).Build()
	}
	return b.Publish().Channel(channel).Message(rueidis.BinaryString(message)).Build()
}
