package fanout

import (
	"context"
	"hash/maphash"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

const (
	laneOrders = 8192            // waiting orders in a lane: 32 full calls; more are refused with ErrBusy
	laneBytes  = 32 << 20        // and their frames
	batchMost  = 256             // orders a call: 128 are enough to share its cost, and 256 hold Redis up for less than a millisecond
	batchBytes = 1 << 20         // and their frames, at most twice that
	leaveTime  = 1 * time.Second // to route what is queued when the router stops

	expireEvery = 10 * time.Millisecond // at most so often all that is queued is looked at for callers who wait no longer
)

// lane is the queue of one shard: one call at a time is under way, and what comes meanwhile shares the next.
type lane struct {
	// static after construction
	shard  int
	router *Router

	// owned by the run loop
	failing bool   // the last call did
	calls   uint64 // so far

	wake chan struct{} // capacity 1: one signal is enough; never closed

	turns turns

	mu sync.Mutex
	// mu guards the following
	queue    []*order
	admitted int                      // orders that are queued, or will be when our own sockets have got them
	bytes    int                      // of their frames, each counted once
	sharing  map[*presence.Shared]int // how many of them have a frame in common
	closed   bool
	numbers  uint64            // orders taken so far
	watched  map[string]*watch // by user; at most one for each open inquiry

	expires time.Time   // when the first caller stops waiting; zero: nobody waits
	expired time.Time   // when expire ran last
	expiry  *time.Timer // runs expire when it is time for that; nil until it is needed first
}

func newLane(shard int, r *Router) *lane {
	l := &lane{shard: shard, router: r, wake: make(chan struct{}, 1), watched: map[string]*watch{}, sharing: map[*presence.Shared]int{}}
	l.turns.seed = maphash.MakeSeed()
	return l
}

// turns are locks of which each user has one, with few others: who holds it is the only one who pushes to that user. So the user's sockets
// here and the queue get pushes in the same order, and writing to one user's sockets holds up hardly any other's.
type turns struct {
	seed  maphash.Seed
	locks [64]sync.Mutex // their number: far more than the cores that could want one at once
}

func (l *lane) turnOf(user string) *sync.Mutex {
	return &l.turns.locks[maphash.String(l.turns.seed, user)%uint64(len(l.turns.locks))]
}

// enqueue serves the local sockets and queues the order for all other instances, or refuses it if there is no room.
func (l *lane) enqueue(o *order) {
	turn := l.turnOf(o.push.User)
	turn.Lock()
	defer turn.Unlock()
	l.enqueueInTurn(o, false)
}

// enqueueInTurn is enqueue for who has the user's turn. servedHere: our own sockets have got it already.
func (l *lane) enqueueInTurn(o *order, servedHere bool) {
	if err := l.admit(o); err != nil {
		o.settle(queued, Outcome{Err: err}, 0)
		return
	}
	if servedHere {
		presence.List(nil).Deliver(uuid.Nil, presence.Message{Tally: o.tally()})
	} else {
		o.local = l.serve(o)
	}
	l.mu.Lock()
	l.queue = append(l.queue, o)
	if until := o.ticket.until; l.expires.IsZero() || until.Before(l.expires) {
		l.expireAtLocked(until)
	}
	l.mu.Unlock()
	l.signal()
}

// admit keeps room for an order and numbers it.
func (l *lane) admit(o *order) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	adds := l.addsLocked(o)
	switch {
	case l.closed:
		return ErrClosing
	case l.admitted >= laneOrders || l.bytes+adds > laneBytes:
		return ErrBusy
	}
	if err := l.begin(o); err != nil {
		return err
	}
	l.admitted++
	l.bytes += adds
	if o.push.Shared != nil {
		l.sharing[o.push.Shared]++
	}
	l.numberLocked(o)
	return nil
}

// addsLocked is how many bytes an order adds: none if its frame is here already.
func (l *lane) addsLocked(o *order) int {
	if l.sharing[o.push.Shared] > 0 {
		return 0
	}
	return len(o.push.Frame)
}

// dismissLocked ends what admit began.
func (l *lane) dismissLocked(o *order) {
	l.admitted--
	if shared := o.push.Shared; shared != nil {
		if l.sharing[shared]--; l.sharing[shared] == 0 {
			delete(l.sharing, shared)
		}
	}
	l.bytes -= l.addsLocked(o)
}

// serve does for our own sockets what the order is for.
func (l *lane) serve(o *order) (took int) {
	sockets := l.router.sockets.Of(o.push.User)
	if o.push.kick {
		return sockets.Close(o.push.Exclude, CloseKicked, string(o.push.Frame), o.tally())
	}
	return sockets.Deliver(o.push.Exclude, presence.Message{Frame: o.push.Frame, Shared: o.push.Shared, Tally: o.tally()})
}

// expire gives up what is still queued when its caller stops waiting.
func (l *lane) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, first := time.Now(), time.Time{}
	l.expired = now
	for _, o := range l.queue {
		switch until := o.ticket.until; {
		case !until.After(now):
			o.settle(queued, Outcome{Err: context.DeadlineExceeded}, 0)
		case first.IsZero() || until.Before(first):
			first = until
		}
	}
	if l.expires = first; !first.IsZero() {
		l.expireAtLocked(first)
	}
}

// expireAtLocked has expire run at a moment, or as soon after as it may.
func (l *lane) expireAtLocked(at time.Time) {
	l.expires = at
	in := max(time.Until(at), time.Until(l.expired.Add(expireEvery)))
	if l.expiry == nil {
		l.expiry = time.AfterFunc(in, l.expire)
	} else {
		l.expiry.Reset(in)
	}
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) run(ctx context.Context) {
	for {
		select {
		case <-l.wake:
			l.drain(context.WithoutCancel(ctx))
		case <-ctx.Done():
			l.close(ctx)
			return
		}
	}
}

// drain routes until nothing is queued.
func (l *lane) drain(ctx context.Context) {
	for {
		runtime.Gosched() // let those who are about to push do so: they share the call
		sharing := l.router.sharing()
		batch := l.take(sharing)
		if len(batch) == 0 {
			return
		}
		l.route(ctx, batch, sharing)
	}
}

// close refuses what comes from now on and routes what is queued.
func (l *lane) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for i := range l.turns.locks { // who has a turn may have been admitted, and is about to queue
		l.turns.locks[i].Lock()
		l.turns.locks[i].Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	l.drain(ctx)
}

// take removes from the queue what one call may carry, without what its callers have given up; nothing only if nothing is left. sharing:
// the call carries a frame in common but once.
func (l *lane) take(sharing bool) []*order {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := make([]*order, 0, min(len(l.queue), batchMost))
	taken, bytes := 0, 0
	var shared *presence.Shared // of the last
	for taken < len(l.queue) && len(batch) < batchMost && bytes < batchBytes {
		o := l.queue[taken]
		alone := len(o.skip) > 0 // it gets a call of its own
		if alone && len(batch) > 0 {
			break
		}
		taken++
		l.dismissLocked(o)
		if !o.claim() {
			continue
		}
		batch = append(batch, o)
		if !sharing || o.push.Shared == nil || o.push.Shared != shared {
			bytes += len(o.push.Frame)
		}
		shared = o.push.Shared
		if alone {
			break
		}
	}
	left := copy(l.queue, l.queue[taken:])
	clear(l.queue[left:]) // lets go of the frames
	l.queue = l.queue[:left]
	return batch
}
