package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// instancesPushed is how many instances share the sockets of the measurement "pushes": half of the pushes arrive where their socket is.
const instancesPushed = 2

// measurePushes pushes to every user in turn, flat out and then at a steady rate.
func measurePushes(ctx context.Context, s *stage) ([]row, error) {
	floor, err := measurePushFloor(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	p, err := s.preparePushing(ctx, instancesPushed, s.users)
	if err != nil {
		return nil, err
	}
	if _, err := p.flatOut(ctx, s.duration/5); err != nil { // to warm up
		return nil, err
	}
	full, err := p.flatOut(ctx, s.duration)
	if err != nil {
		return nil, err
	}
	steady, err := p.steady(ctx, s.rate, s.duration)
	if err != nil {
		return nil, err
	}
	delays, err := p.crowd.delays(ctx)
	if err != nil {
		return nil, err
	}
	arrived, err := finalArrivals(ctx, p.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	const empty = "empty handlers"
	return []row{
		{what: fmt.Sprintf("**HTTP pushes**, %d instances, %s sockets, %d at a time", instancesPushed, thousands(int64(s.users)), s.callers),
			found: full.rate(), floor: floor.rate(), ofFloor: empty},
		{what: "CPU of the instances, a push", found: full.cpuEach(), floor: floor.cpuEach(), ofFloor: empty},
		{what: "CPU of Redis, a push", found: full.redisEach()},
		{what: "pushes that share a script call", found: full.perScript()},
		{what: fmt.Sprintf("from request to socket at %s pushes/s, median", thousands(int64(s.rate))), found: millis(quantile(delays, 0.5))},
		{what: "99th percentile", found: millis(quantile(delays, 0.99))},
		{what: "CPU of the instances at that rate, a push", found: steady.cpuEach()},
		arrived.row("all these pushes", p.number.Load()),
	}, arrived.fault(p.number.Load())
}

// pushing is what the measurement needs: instances, Redis, sockets and callers.
type pushing struct {
	*stage
	redis   *redisServer
	servers []*server
	crowd   *crowd
	callers []*caller
	sockets int          // each of another user
	number  atomic.Int64 // of the next push; it grows through all loads
}

func (s *stage) preparePushing(ctx context.Context, instances, sockets int) (*pushing, error) {
	p := &pushing{stage: s, sockets: sockets}
	var err error
	if p.redis, err = s.startRedis(ctx); err != nil {
		return nil, err
	}
	p.servers, err = startServers(instances, func() (*server, error) { return s.startInstance(ctx, p.redis) })
	if err != nil {
		return nil, err
	}
	if p.crowd, err = s.gather(sockets); err != nil {
		return nil, err
	}
	if _, err = p.crowd.dial(ctx, sockets, p.servers...); err != nil {
		return nil, err
	}
	p.callers, err = s.dialCallers(s.callers, p.servers)
	return p, err
}

// flatOut pushes as fast as the callers can.
func (p *pushing) flatOut(ctx context.Context, duration time.Duration) (cost, error) {
	return p.untilArrived(ctx, func() (int64, error) {
		return flatOut(ctx, len(p.callers), duration, func(caller int) error { return p.push(caller, time.Time{}) })
	})
}

// steady pushes at a rate that leaves time to spare, so that the delays are not those of queues.
func (p *pushing) steady(ctx context.Context, rate int, duration time.Duration) (cost, error) {
	return p.untilArrived(ctx, func() (int64, error) { return paced(ctx, len(p.callers), rate, duration, p.push) })
}

// untilArrived measures the cost of pushes until all have arrived.
func (p *pushing) untilArrived(ctx context.Context, load func() (int64, error)) (cost, error) {
	return p.measure(ctx, p.redis, pids(p.servers), func() (int64, error) {
		done, err := load()
		if err == nil {
			_, err = awaitArrivals(ctx, p.number.Load(), p.crowd.arrivals)
		}
		return done, err
	})
}

func (p *pushing) push(caller int, due time.Time) error {
	number := p.number.Add(1) - 1
	return p.callers[caller].push(number%int64(p.sockets), stamp(number, due, p.payload))
}

// measurePushFloor drives servers that answer at once, with the same callers and requests.
func measurePushFloor(ctx context.Context, s *stage) (cost, error) {
	servers, err := startServers(instancesPushed, func() (*server, error) { return s.startFloor(ctx) })
	if err != nil {
		return cost{}, err
	}
	callers, err := s.dialCallers(s.callers, servers)
	if err != nil {
		return cost{}, err
	}
	push := func(caller int) error { return callers[caller].push(0, stamp(0, time.Time{}, s.payload)) }
	if _, err := flatOut(ctx, len(callers), s.duration/5, push); err != nil { // to warm up
		return cost{}, err
	}
	return s.measure(ctx, nil, pids(servers), func() (int64, error) { return flatOut(ctx, len(callers), s.duration, push) })
}
