package fanout

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

const (
	laneOrders = 8192            // waiting orders in a lane: some 50 full calls; more are refused with ErrBusy
	laneBytes  = 32 << 20        // and their frames
	batchMost  = 256             // orders a call: 128 are enough to share its cost, and 256 hold Redis up for less than a millisecond
	batchBytes = 1 << 20         // and their frames, at most twice that
	leaveTime  = 1 * time.Second // to route what is queued when the router stops
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

	mu sync.Mutex
	// mu guards the following, and the order in which local sockets and the queue get pushes
	queue   []*order
	bytes   int // of the queued frames
	closed  bool
	numbers uint64            // orders taken so far
	watched map[string]*watch // by user; at most one for each open inquiry
}

func newLane(shard int, r *Router) *lane {
	return &lane{shard: shard, router: r, wake: make(chan struct{}, 1), watched: map[string]*watch{}}
}

// enqueue serves the local sockets and queues the orders for all other instances, or refuses what finds no room.
func (l *lane) enqueue(orders []*order) {
	l.mu.Lock()
	for _, o := range orders {
		l.enqueueLocked(o, false)
	}
	l.mu.Unlock()
	l.signal()
}

// enqueueLocked takes one order. servedHere: our own sockets have got it already.
func (l *lane) enqueueLocked(o *order, servedHere bool) {
	err := l.refusalLocked(o)
	if err == nil {
		err = l.begin(o)
	}
	if err != nil {
		o.settle(queued, Outcome{Err: err}, 0)
		return
	}
	l.numberLocked(o)
	if servedHere {
		o.inquiry.gather.onLocal(presence.Counts{})
	} else {
		o.local = l.serve(o)
	}
	l.queue = append(l.queue, o)
	l.bytes += len(o.push.Frame)
}

// serve does for our own sockets what the order is for.
func (l *lane) serve(o *order) (took int) {
	if o.push.kick {
		return l.router.sockets.CloseUser(o.push.User, o.push.Exclude, CloseKicked, string(o.push.Frame), o.tally())
	}
	return l.router.sockets.Deliver(o.push.User, o.push.Exclude, o.push.Frame, o.tally())
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) refusalLocked(o *order) error {
	switch {
	case l.closed:
		return ErrClosing
	case len(l.queue) >= laneOrders || l.bytes+len(o.push.Frame) > laneBytes:
		return ErrBusy
	}
	return nil
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	l.drain(ctx)
}

// take removes from the queue what one call may carry, without what its callers have given up.
func (l *lane) take() []*order {
	l.mu.Lock()
	defer l.mu.Unlock()
	var batch []*order
	taken, bytes := 0, 0
	for taken < len(l.queue) && len(batch) < batchMost && bytes < batchBytes {
		o := l.queue[taken]
		if len(o.skip) > 0 && len(batch) > 0 {
			break // it gets a call of its own
		}
		taken++
		l.bytes -= len(o.push.Frame)
		if o.claim() {
			batch = append(batch, o)
			bytes += len(o.push.Frame)
		}
		if len(o.skip) > 0 {
			break
		}
	}
	clear(l.queue[:taken]) // lets go of the frames
	l.queue = l.queue[taken:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	return batch
}

// route sends one batch. It is not tried again if it fails: it may have got through, or get through later, when other calls have. Calls
// are numbered, so that their messages are then known to be late.
func (l *lane) route(ctx context.Context, batch []*order) {
	ctx, cancel := context.WithTimeout(ctx, l.router.redis.Timeout)
	defer cancel()
	began := time.Now()
	answers, err := l.call(ctx, batch)
	l.router.meter.Batch(len(batch), time.Since(began), err)
	if failed := err != nil; failed != l.failing { // once, however many pushes fail
		l.failing = failed
		l.router.log.Warn("route", "shard", l.shard, "failing", failed, "error", err)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	for i, o := range batch {
		if err != nil {
			o.settle(sent, Outcome{Err: err}, 0)
		} else {
			state, reached, elsewhere := unpack(answers[i])
			o.settle(sent, Outcome{State: state, Instances: reached}, elsewhere)
		}
	}
}

// unpack reads a number of push.lua's answer.
func unpack(answer int64) (state presence.State, reached, sockets int) {
	return presence.State(answer & 3), int(answer >> 2 & 0xffff), int(answer >> 18)
}

func (l *lane) call(ctx context.Context, batch []*order) ([]int64, error) {
	redis := l.router.redis
	l.calls++
	head := envelope{kind: kindCall, ask: l.calls, sender: l.router.instance}.append(nil)
	args := make([]string, 6+2*len(batch))
	args[0], args[1] = redis.Publish, redis.Keys.Channels(l.shard)
	args[2] = " " + strings.Join(append([]string{l.router.instance}, batch[0].skip...), " ") + " "
	args[3], args[4], args[5] = strconv.FormatInt(redis.Grace.Milliseconds(), 10), rueidis.BinaryString(head), strconv.Itoa(len(batch))
	for i, o := range batch {
		args[6+i] = o.push.User
		args[6+len(batch)+i] = rueidis.BinaryString(l.envelope(o).append(nil))
	}
	keys := []string{redis.Keys.Owners(l.shard), redis.Keys.Leases(l.shard)}
	answers, err := lua.Push.Exec(ctx, redis.Client, keys, args).AsIntSlice()
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("push.lua answered %d numbers for %d envelopes", len(answers), len(batch))
	}
	return answers, err
}

// envelope is what the order's other owners get.
func (l *lane) envelope(o *order) envelope {
	e := envelope{kind: o.kind(), user: o.push.User, exclude: o.push.Exclude, frame: o.push.Frame}
	if o.inquiry != nil {
		e.ask, e.sender, e.id = o.inquiry.ask, l.router.instance, o.ackedID()
		e.within = replyWithin(o.ticket.until)
	}
	return e
}

// ackedID is the push that clients must confirm; uuid.Nil if they need not.
func (o *order) ackedID() uuid.UUID {
	if o.push.Wait == Acked {
		return o.push.ID
	}
	return uuid.Nil
}

func (o *order) kind() kind {
	if o.push.kick {
		return kindKickUser
	}
	return kindPush
}

// replyWithin is the time that an instance has to reply to a question: the reply needs some time too.
func replyWithin(until time.Time) time.Duration { return max(time.Until(until)*9/10, time.Millisecond) }
