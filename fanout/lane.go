package fanout

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

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

	wake chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following, and the order in which local sockets and the queue get pushes
	queue  []*order
	bytes  int // of the queued frames
	closed bool
}

func newLane(shard int, r *Router) *lane {
	return &lane{shard: shard, router: r, wake: make(chan struct{}, 1)}
}

// enqueue serves the local sockets and queues the orders for all other instances, or refuses what finds no room.
func (l *lane) enqueue(orders []*order) {
	l.mu.Lock()
	for _, o := range orders {
		if err := l.refusalLocked(o); err != nil {
			o.settle(queued, Outcome{Err: err})
			continue
		}
		o.local = l.router.sockets.Deliver(o.push.User, o.push.Exclude, o.push.Frame)
		l.queue = append(l.queue, o)
		l.bytes += len(o.push.Frame)
	}
	l.mu.Unlock()
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
			l.drain(ctx)
		case <-ctx.Done():
			l.close(ctx)
			return
		}
	}
}

// drain routes until nothing is queued.
func (l *lane) drain(ctx context.Context) {
	for batch := l.take(); len(batch) > 0; batch = l.take() {
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
		taken++
		l.bytes -= len(o.push.Frame)
		if o.claim() {
			batch = append(batch, o)
			bytes += len(o.push.Frame)
		}
	}
	clear(l.queue[:taken]) // lets go of the frames
	l.queue = l.queue[taken:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	return batch
}

// route sends one batch. It is not tried again if it fails: it may have got through.
func (l *lane) route(ctx context.Context, batch []*order) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.router.redis.Timeout)
	defer cancel()
	answers, err := l.call(ctx, batch)
	if err != nil {
		l.router.log.Warn("route", "shard", l.shard, "pushes", len(batch), "error", err)
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	for i, o := range batch {
		if err != nil {
			o.settle(sent, Outcome{Err: err})
		} else {
			o.settle(sent, Outcome{State: presence.State(answers[2*i]), Instances: int(answers[2*i+1])})
		}
	}
}

func (l *lane) call(ctx context.Context, batch []*order) ([]int64, error) {
	redis := l.router.redis
	args := make([]string, 5+2*len(batch))
	args[0], args[1], args[2] = redis.Publish, redis.Keys.Channels(l.shard), l.router.instance
	args[3], args[4] = strconv.FormatInt(redis.Grace.Milliseconds(), 10), strconv.Itoa(len(batch))
	for i, o := range batch {
		e := envelope{kind: kindPush, sender: l.router.instance, user: o.push.User, exclude: o.push.Exclude, frame: o.push.Frame}
		args[5+i] = o.push.User
		args[5+len(batch)+i] = rueidis.BinaryString(e.append(nil))
	}
	keys := []string{redis.Keys.Owners(l.shard), redis.Keys.Leases(l.shard)}
	answers, err := lua.Push.Exec(ctx, redis.Client, keys, args).AsIntSlice()
	if err == nil && len(answers) != 2*len(batch) {
		err = fmt.Errorf("push.lua answered %d numbers for %d envelopes", len(answers), len(batch))
	}
	return answers, err
}
