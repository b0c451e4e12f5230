package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/fanout"
	"rollcall/presence"
)

const (
	manyPushes  = 1000 // together, as in one POST /push
	manyCallers = 4    // of those: they stay well below what a router queues
)

// measureRouter pushes from one node to sockets on another, so that every push crosses Redis.
func measureRouter(ctx context.Context, s *stage) ([]row, error) {
	r, err := s.prepareRouting(ctx)
	if err != nil {
		return nil, err
	}
	floor, err := r.measurePublish(ctx)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	if _, err := r.flatOut(ctx, s.callers, s.duration/5, 1); err != nil { // to warm up
		return nil, err
	}
	one, err := r.flatOut(ctx, s.callers, s.duration, 1)
	if err != nil {
		return nil, err
	}
	many, err := r.flatOut(ctx, manyCallers, s.duration, manyPushes)
	if err != nil {
		return nil, err
	}
	arrived, err := finalArrivals(ctx, r.arrivals)
	if err != nil {
		return nil, err
	}
	const bare = "bare PUBLISH"
	return []row{
		{what: fmt.Sprintf("**pushes of the router alone**, %d at a time, to another instance", s.callers), found: one.rate(), floor: floor.rate(), ofFloor: bare},
		{what: "CPU of Redis, a push", found: one.redisEach(), floor: floor.redisEach(), ofFloor: bare},
		{what: "CPU of router and receiver, a push", found: one.cpuEach(), floor: floor.cpuEach(), ofFloor: bare},
		{what: "pushes that share a script call", found: one.perScript()},
		{what: fmt.Sprintf("**pushes to %s users**, %d at a time", thousands(manyPushes), manyCallers), found: many.rate(), floor: floor.rate(), ofFloor: bare},
		{what: "CPU of Redis, a push", found: many.redisEach(), floor: floor.redisEach(), ofFloor: bare},
		{what: "CPU of router and receiver, a push", found: many.cpuEach(), floor: floor.cpuEach(), ofFloor: bare},
		arrived.row("all these pushes", r.number.Load()),
	}, arrived.fault(r.number.Load())
}

// routing is what the measurement needs: Redis and two nodes, of which one has the sockets.
type routing struct {
	*stage
	redis  *redisServer
	router *fanout.Router // of the other one
	tally  tally
	number atomic.Int64 // of the next push; it grows through all loads
}

func (s *stage) prepareRouting(ctx context.Context) (*routing, error) {
	r := &routing{stage: s}
	var err error
	if r.redis, err = s.startRedis(ctx); err != nil {
		return nil, err
	}
	owner, err := s.startNode(ctx, "owner", r.redis)
	if err != nil {
		return nil, err
	}
	sender, err := s.startNode(ctx, "sender", r.redis)
	if err != nil {
		return nil, err
	}
	r.router = sender.router
	return r, owner.join(ctx, s.users, func(user int) presence.Conn {
		return &fakeConn{inbox{tally: &r.tally, user: int64(user), users: int64(s.users)}}
	})
}

// flatOut has callers push as fast as they can, so many pushes at a time each, and measures the cost until all have arrived.
func (r *routing) flatOut(ctx context.Context, callers int, duration time.Duration, together int) (cost, error) {
	return r.measure(ctx, r.redis, []int{os.Getpid()}, func() (int64, error) {
		calls, err := flatOut(ctx, callers, duration, func(int) error { return r.push(ctx, together) })
		if err == nil {
			_, err = awaitArrivals(ctx, r.number.Load(), r.arrivals)
		}
		return calls * int64(together), err
	})
}

// push pushes to so many users in turn and wants each to be taken.
func (r *routing) push(ctx context.Context, together int) error {
	first := r.number.Add(int64(together)) - int64(together)
	pushes := make([]fanout.Push, together)
	for i := range pushes {
		number := first + int64(i)
		pushes[i] = fanout.Push{User: userName(number % int64(r.users)), Frame: r.frame(number)}
	}
	for _, outcome := range r.router.Begin(pushes, time.Now().Add(fanout.MaxWait)).Wait(ctx) {
		if outcome.Err != nil || outcome.Instances != 1 {
			return fmt.Errorf("push: want one instance to take it, got %+v", outcome)
		}
	}
	return nil
}

// frame is one as the binary makes it of a push.
func (r *routing) frame(number int64) []byte {
	return fmt.Appendf(nil, `{"event":"bench","data":%s,"id":"%s"}`, stamp(number, time.Time{}, r.payload), uuid.Nil)
}

func (r *routing) arrivals(context.Context) (Arrivals, error) { return r.tally.arrivals(), nil }

// measurePublish publishes frames to one subscriber, with the client and the callers of the pushes.
func (r *routing) measurePublish(ctx context.Context) (cost, error) {
	const channel = "rollcall:bench:floor"
	publisher, err := rueidis.NewClient(redisOption(r.redis.addr))
	if err != nil {
		return cost{}, err
	}
	r.atEnd(publisher.Close)
	subscriber, err := rueidis.NewClient(redisOption(r.redis.addr))
	if err != nil {
		return cost{}, err
	}
	r.atEnd(subscriber.Close)
	var received atomic.Int64
	subscribed := make(chan struct{}) // closed when it is confirmed
	r.background(ctx, func(ctx context.Context) {
		ctx = rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { close(subscribed) })
		_ = subscriber.Receive(ctx, subscriber.B().Subscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) { received.Add(1) })
	})
	select {
	case <-subscribed:
	case <-ctx.Done():
		return cost{}, context.Cause(ctx)
	}
	return r.measure(ctx, r.redis, []int{os.Getpid()}, func() (int64, error) {
		done, err := flatOut(ctx, r.callers, r.duration, func(int) error {
			return publisher.Do(ctx, publisher.B().Publish().Channel(channel).Message(rueidis.BinaryString(r.frame(0))).Build()).Error()
		})
		if err == nil {
			_, err = awaitArrivals(ctx, done, func(context.Context) (Arrivals, error) { return Arrivals{Received: received.Load()}, nil })
		}
		return done, err
	})
}
