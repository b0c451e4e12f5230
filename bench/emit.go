package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// emitCallers emit at the same time, in the second part of the measurement.
const emitCallers = 4

// measureEmit emits to all sockets of two instances, and of two servers that do nothing else than write to them.
func measureEmit(ctx context.Context, s *stage) ([]row, error) {
	floor, err := s.prepareEmitFloor(ctx)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	e, err := s.prepareEmitting(ctx)
	if err != nil {
		return nil, err
	}
	least, found, err := emitInTurn(ctx, floor, e)
	if err != nil {
		return nil, err
	}
	const raw = "a raw write to each"
	rows := []row{
		{what: fmt.Sprintf("**deliveries of emits** to %s sockets, %d instances, %d bytes, one emit at a time", thousands(int64(s.audience)), usualInstances, s.payload),
			found: found.alone.rate(), floor: least.alone.rate(), ofFloor: raw},
		{what: "CPU of the instances, a delivery", found: found.alone.cpuEach(), floor: least.alone.cpuEach(), ofFloor: raw},
		{what: fmt.Sprintf("%d emits at a time", emitCallers), found: found.together.rate(), floor: least.together.rate(), ofFloor: raw},
		{what: "CPU of the instances, a delivery", found: found.together.cpuEach(), floor: least.together.cpuEach(), ofFloor: raw},
	}
	arrived, err := finalArrivals(ctx, e.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	atFloor, err := finalArrivals(ctx, floor.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	rows = append(rows, arrived.row("all these deliveries", e.deliveries()))
	return rows, errors.Join(arrived.fault(e.deliveries()), atFloor.fault(floor.deliveries()))
}

// emitCosts are those of a delivery, with one emit at a time and with some.
type emitCosts struct{ alone, together cost }

// emitInTurn measures the floor and the instances in turn.
func emitInTurn(ctx context.Context, floor, e *emitting) (least, found emitCosts, err error) {
	emits := func(of *emitting, callers int) func() (cost, error) {
		return func() (cost, error) { return of.flatOut(ctx, callers) }
	}
	turns := []turn{
		{emits(floor, 1), &least.alone}, {emits(e, 1), &found.alone},
		{emits(floor, emitCallers), &least.together}, {emits(e, emitCallers), &found.together},
	}
	if err = warmUp(turns...); err == nil {
		err = takeTurns(turns...)
	}
	return least, found, err
}

// emitting is what the measurement needs: servers with sockets, and callers.
type emitting struct {
	*stage
	redis   *redisServer // nil: the servers are floors
	servers []*server
	crowd   *crowd
	dial    func(i int) ([]*caller, error) // for one emit at a time: more than one caller, if each server must be told by itself
	answer  string                         // has these words
	number  atomic.Int64                   // of the next emit; it grows through all loads
}

// prepareEmitting starts instances and their sockets.
func (s *stage) prepareEmitting(ctx context.Context) (*emitting, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	servers, err := startServers(usualInstances, func() (*server, error) { return s.startInstance(ctx, redis) })
	if err != nil {
		return nil, err
	}
	return s.fill(ctx, &emitting{
		redis: redis, servers: servers, answer: fmt.Sprintf(`"instances":%d`, usualInstances),
		dial: func(i int) ([]*caller, error) { return s.dialCallers(1, servers[i%len(servers):]) },
	})
}

// prepareEmitFloor starts servers that know nothing of each other, so that each must be told of every emit.
func (s *stage) prepareEmitFloor(ctx context.Context) (*emitting, error) {
	servers, err := startServers(usualInstances, func() (*server, error) { return s.startFloor(ctx) })
	if err != nil {
		return nil, err
	}
	return s.fill(ctx, &emitting{
		servers: servers, answer: `"instances":1`,
		dial: func(int) ([]*caller, error) { return s.dialCallers(len(servers), servers) },
	})
}

// fill opens the sockets that get the emits.
func (s *stage) fill(ctx context.Context, e *emitting) (*emitting, error) {
	e.stage = s
	var err error
	if e.crowd, err = s.gather(s.audience); err != nil {
		return nil, err
	}
	e.crowd.emits = true
	_, err = e.crowd.dial(ctx, s.audience, e.servers...)
	return e, err
}

// flatOut emits as fast as so many callers can, and measures the cost of a delivery until all have arrived.
func (e *emitting) flatOut(ctx context.Context, callers int) (cost, error) {
	dialed := make([][]*caller, callers)
	for i := range dialed {
		var err error
		if dialed[i], err = e.dial(i); err != nil {
			return cost{}, err
		}
	}
	return e.crowd.readingRarely(ctx, func() (cost, error) {
		return e.measure(ctx, e.redis, pids(e.servers), func() (int64, error) {
			emits, err := flatOut(ctx, callers, e.duration/turnRounds, func(i int) error { return e.emit(dialed[i]) })
			if err == nil {
				_, err = awaitArrivals(ctx, e.deliveries(), e.crowd.arrivals)
			}
			return emits * int64(e.audience), err
		})
	})
}

// emit makes one emit: a request by each of these callers, at the same time.
func (e *emitting) emit(callers []*caller) error {
	data := stamp(e.number.Add(1)-1, time.Time{}, e.payload)
	errs := make([]error, len(callers))
	var calling sync.WaitGroup
	for i, caller := range callers {
		calling.Go(func() { errs[i] = caller.want("/emit/all", data, e.answer) })
	}
	calling.Wait()
	return errors.Join(errs...)
}

// deliveries are how many all emits so far make.
func (e *emitting) deliveries() int64 { return e.number.Load() * int64(e.audience) }
