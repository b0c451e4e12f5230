package fanout

import (
	"context"
	"runtime"
	"sync"
	"time"

	"rollcall/presence"
)

const (
	laneOrders = 8192            // waiting orders in a lane: 32 full calls; more are refused with ErrBusy
	laneBytes  = 32 << 20        // and their frames
	batchMost  = 256             // orders a call: 128 are enough to share its cost, and 256 hold Redis up for less than a millisecond
	batchBytes = 1 << 20         // and their frames, at most twice that
	leaveTime  = 1 * time.Second // to route what is queued when the router stops
)

// What clients have caused, as answers of handlers, has a quarter of a lane: they can fill that, and leave the rest to backends. One
// user has a quarter of it, or one order, however large it is.
const (
	clientOrders = laneOrders / 4
	clientBytes  = laneBytes / 4
	userOrders   = clientOrders / 4
	userBytes    = clientBytes / 4
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

	taking sync.WaitGroup // orders that are admitted and not queued yet; none begins once it is closed

	mu sync.Mutex
	// mu guards the following
	queue    []*order
	users    map[string]*laneUser
	clients  usage                    // of room, by what clients have caused
	admitted int                      // orders that are queued, or will be when our own sockets have got them
	bytes    int                      // of their frames, each counted once
	sharing  map[*presence.Shared]int // how many of them have a frame in common
	closed   bool
}

// usage is how much of a lane's room something takes.
type usage struct{ orders, bytes int }

func (u *usage) add(orders, bytes int) { u.orders, u.bytes = u.orders+orders, u.bytes+bytes }

func newLane(shard int, r *Router) *lane {
	return &lane{
		shard: shard, router: r, wake: make(chan struct{}, 1),
		users: map[string]*laneUser{}, sharing: map[*presence.Shared]int{},
	}
}

// enqueue serves the local sockets and queues the order for all other instances, or refuses it if there is no room.
func (l *lane) enqueue(o *order) {
	user := l.takeTurn(o.push.User)
	defer l.endTurn(user)
	if err := l.admit(o); err != nil {
		o.settle(queued, Outcome{Err: err}, 0)
		return
	}
	defer l.taking.Done()
	o.local = l.serve(o)
	if o.push.Wait == Handed {
		o.inquiry.gather.onLocal(presence.Counts{})
	}
	l.mu.Lock()
	l.queue = append(l.queue, o)
	l.mu.Unlock()
	l.signal()
}

// admit keeps room for an order.
func (l *lane) admit(o *order) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	adds := l.addsLocked(o)
	switch {
	case l.closed:
		return ErrClosing
	case l.admitted >= laneOrders || l.bytes+adds > laneBytes, o.push.FromClient && !l.clientFitsLocked(o, adds):
		return ErrBusy
	}
	if err := l.ask(o); err != nil {
		return err
	}
	l.taking.Add(1)
	l.admitted++
	l.bytes += adds
	if o.push.FromClient {
		l.clients.add(1, adds)
		l.users[o.push.User].clients.add(1, adds)
	}
	if o.push.Shared != nil {
		l.sharing[o.push.Shared]++
	}
	return nil
}

// clientFitsLocked says whether there is room for an order that a client has caused.
func (l *lane) clientFitsLocked(o *order, adds int) bool {
	user := l.users[o.push.User].clients // it is there: who admits has the user's turn
	return l.clients.orders < clientOrders && l.clients.bytes+adds <= clientBytes &&
		user.orders < userOrders && (user.orders == 0 || user.bytes+adds <= userBytes)
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
	adds := l.addsLocked(o)
	l.bytes -= adds
	if o.push.FromClient {
		l.clients.add(-1, -adds)
		l.users[o.push.User].clients.add(-1, -adds)
		l.forgetUserLocked(o.push.User)
	}
}

// serve does for our own sockets what the order is for.
func (l *lane) serve(o *order) (took int) {
	sockets := l.router.sockets.Of(o.push.User)
	if o.push.kick {
		return sockets.Close(o.push.Exclude, CloseKicked, string(o.push.Frame), o.tally())
	}
	return sockets.Deliver(o.push.Exclude, presence.Message{Frame: o.push.Frame, Shared: o.push.Shared, Tracker: o.tally()})
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
		batch := l.take()
		if len(batch) == 0 {
			return
		}
		l.route(ctx, batch)
	}
}

// close refuses what comes from now on and routes what is queued.
func (l *lane) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.taking.Wait() // what is admitted is about to be queued
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	l.drain(ctx)
}

// take removes from the queue what one call may carry, without what its callers have given up; nothing only if nothing is left. A call
// carries a frame in common but once.
func (l *lane) take() []*order {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := make([]*order, 0, min(len(l.queue), batchMost))
	taken, bytes, now := 0, 0, time.Now()
	var shared *presence.Shared // of the last
	for taken < len(l.queue) && len(batch) < batchMost && bytes < batchBytes {
		o := l.queue[taken]
		taken++
		l.dismissLocked(o)
		if !o.claim(now) {
			continue
		}
		batch = append(batch, o)
		if o.push.Shared == nil || o.push.Shared != shared {
			bytes += len(o.push.Frame)
		}
		shared = o.push.Shared
	}
	left := copy(l.queue, l.queue[taken:])
	clear(l.queue[left:]) // lets go of the frames
	l.queue = l.queue[:left]
	return batch
}
