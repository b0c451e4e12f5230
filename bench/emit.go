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
	least, err := s.measureEmitFloor(ctx)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	servers, err := startServers(instancesPushed, func() (*server, error) { return s.startInstance(ctx, redis) })
	if err != nil {
		return nil, err
	}
	e, err := s.prepareEmitting(ctx, redis, servers)
	if err != nil {
		return nil, err
	}
	e.answer = fmt.Sprintf(`"instances":%d`, instancesPushed)
	e.dial = func(i int) ([]*caller, error) { return s.dialCallers(1, servers[i%len(servers):]) }
	found, err := e.measureBoth(ctx)
	if err != nil {
		return nil, err
	}
	const raw = "a raw write to each"
	rows := []row{
		{what: fmt.Sprintf("**deliveries of emits** to %s sockets, %d instances, %d bytes, one emit at a time", thousands(int64(s.audience)), instancesPushed, s.payload),
			found: found.alone.rate(), floor: least.alone.rate(), ofFloor: raw},
		{what: "CPU of the instances, a delivery", found: found.alone.cpuEach(), floor: least.alone.cpuEach(), ofFloor: raw},
		{what: fmt.Sprintf("**%d emits at a time**", emitCallers), found: found.together.rate(), floor: least.together.rate(), ofFloor: raw},
		{what: "CPU of the instances, a delivery", found: found.together.cpuEach(), floor: least.together.cpuEach(), ofFloor: raw},
	}
	arrived, err := finalArrivals(ctx, e.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	sent := e.deliveries()
	return append(rows, arrived.row("all these deliveries", sent)), arrived.fault(sent)
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

func (s *stage) prepareEmitting(ctx context.Context, redis *redisServer, servers []*server) (*emitting, error) {
	e := &emitting{stage: s, redis: redis, servers: servers}
	var err error
	if e.crowd, err = s.gather(s.audience); err != nil {
		return nil, err
	}
	e.crowd.emits = true
	_, err = e.crowd.dial(ctx, s.audience, servers...)
	return e, err
}

// emitCosts are those of a delivery, with one emit at a time and with some.
type emitCosts struct{ alone, together cost }

func (e *emitting) measureBoth(ctx context.Context) (c emitCosts, err error) {
	if _, err = e.flatOut(ctx, 1, e.duration/5); err != nil { // to warm up
		return c, err
	}
	if c.alone, err = e.flatOut(ctx, 1, e.duration); err != nil {
		return c, err
	}
	c.together, err = e.flatOut(ctx, emitCallers, e.duration)
	return c, err
}

// flatOut emits as fast as so many callers can, and measures the cost of a delivery until all have arrived.
func (e *emitting) flatOut(ctx context.Context, callers int, duration time.Duration) (cost, error) {
	dialed := make([][]*caller, callers)
	for i := range dialed {
		var err error
		if dialed[i], err = e.dial(i); err != nil {
			return cost{}, err
		}
	}
	return e.measure(ctx, e.redis, pids(e.servers), func() (int64, error) {
		emits, err := flatOut(ctx, callers, duration, func(i int) error { return e.emit(dialed[i]) })
		if err == nil {
			_, err = awaitArrivals(ctx, e.deliveries(), e.crowd.arrivals)
		}
		return emits * int64(e.audience), err
	})
}

// emit makes one emit: a request by each of these callers, at the same time.
func (e *emitting) emit(callers []*caller) error {
	data := stamp(e.number.Add(1)-1, time.Time{}, e.payload)
	errs := make([]error, len(callers))
	var calling sync.WaitGroup
	for i, caller := range callers {
		calling.Go(func() { errs[i] = caller.post("/emit/all", data, e.answer) })
	}
	calling.Wait()
	return errors.Join(errs...)
}

// deliveries are how many all emits so far make.
func (e *emitting) deliveries() int64 { return e.number.Load() * int64(e.audience) }

// measureEmitFloor drives servers that know nothing of each other, so that each is told of every emit, and write it to their sockets.
func (s *stage) measureEmitFloor(ctx context.Context) (emitCosts, error) {
	servers, err := startServers(instancesPushed, func() (*server, error) { return s.startFloor(ctx) })
	if err != nil {
		return emitCosts{}, err
	}
	e, err := s.prepareEmitting(ctx, nil, servers)
	if err != nil {
		return emitCosts{}, err
	}
	e.answer = `"instances":1`
	e.dial = func(int) ([]*caller, error) { return s.dialCallers(len(servers), servers) }
	found, err := e.measureBoth(ctx)
	if err != nil {
		return found, err
	}
	arrived, err := finalArrivals(ctx, e.crowd.arrivals)
	if err != nil {
		return found, err
	}
	for _, one := range servers {
		one.end()
	}
	return found, arrived.fault(e.deliveries())
}
