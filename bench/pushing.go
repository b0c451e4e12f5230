package main

import (
	"context"
	"sync/atomic"
	"time"
)

// pushing is what pushes need: servers, Redis, sockets and callers.
type pushing struct {
	*stage
	redis   *redisServer // nil: the servers do without, and each pushes to its own sockets alone
	servers []*server
	crowd   *crowd
	callers []*caller
	sockets int            // each of another user
	turns   []atomic.Int64 // for each server, or for all of them: how many pushes have been taken from it
	sent    atomic.Int64
}

// setting is where pushes take place.
type setting struct {
	servers, sockets int
	routed           bool // by Rollcall; else by servers that do without Redis
	shared           bool // each socket gets every push, instead of those to its user
	still            bool // instances ask Redis nothing by themselves, as they do to renew their leases and to audit
}

func (s *stage) preparePushing(ctx context.Context, w setting) (*pushing, error) {
	p := &pushing{stage: s, sockets: w.sockets, turns: make([]atomic.Int64, w.servers)}
	start := func() (*server, error) { return s.startLocal(ctx) }
	var err error
	if w.routed {
		p.turns = make([]atomic.Int64, 1)
		var settings []string
		if w.still {
			settings = []string{"ROLLCALL_LEASE=1h"}
		}
		start = func() (*server, error) { return s.startInstance(ctx, p.redis, settings...) }
		if p.redis, err = s.startRedis(ctx); err != nil {
			return nil, err
		}
	}
	if p.servers, err = startServers(w.servers, start); err != nil {
		return nil, err
	}
	if p.crowd, err = s.gather(w.sockets); err != nil {
		return nil, err
	}
	p.crowd.emits = w.shared
	if _, err = p.crowd.dial(ctx, w.sockets, p.servers...); err != nil {
		return nil, err
	}
	p.callers, err = s.dialCallers(s.callers, p.servers)
	return p, err
}

// flatOut pushes as fast as the callers can.
func (p *pushing) flatOut(ctx context.Context, duration time.Duration) (cost, error) {
	return p.untilArrivedUntimed(ctx, func() (int64, error) {
		return flatOut(ctx, len(p.callers), duration, func(caller int) error { return p.push(caller, time.Time{}) })
	})
}

// steady pushes at a rate that leaves time to spare, so that the delays are not those of queues.
func (p *pushing) steady(ctx context.Context, rate int, duration time.Duration) (cost, error) {
	return p.untilArrived(ctx, func() (int64, error) { return paced(ctx, len(p.callers), rate, duration, p.push) })
}

// untilArrivedUntimed is untilArrived for a load of which nobody wants to know the delays.
func (p *pushing) untilArrivedUntimed(ctx context.Context, load func() (int64, error)) (cost, error) {
	return p.crowd.readingRarely(ctx, func() (cost, error) { return p.untilArrived(ctx, load) })
}

// untilArrived measures the cost of pushes until all have arrived.
func (p *pushing) untilArrived(ctx context.Context, load func() (int64, error)) (cost, error) {
	return p.measure(ctx, p.redis, pids(p.servers), func() (int64, error) {
		done, err := load()
		if err == nil {
			_, err = awaitArrivals(ctx, p.sent.Load(), p.crowd.arrivals)
		}
		return done, err
	})
}

// push pushes to the next user. Callers of servers without Redis push to the users whose sockets their server has.
func (p *pushing) push(caller int, due time.Time) error {
	user, data := p.next(caller, due)
	return p.callers[caller].push(user, data)
}

// next is the next push of a caller.
func (p *pushing) next(caller int, due time.Time) (user int64, data []byte) {
	queue := caller % len(p.turns)
	number := (p.turns[queue].Add(1)-1)*int64(len(p.turns)) + int64(queue)
	p.sent.Add(1)
	return number % int64(p.sockets), stamp(number, due, p.payload)
}

// fault says what is wrong with the arrivals of all pushes; nil if each arrived once.
func (p *pushing) fault(ctx context.Context) error {
	arrived, err := finalArrivals(ctx, p.crowd.arrivals)
	if err != nil {
		return err
	}
	return arrived.fault(p.sent.Load())
}

// measureEmptyHandlers drives servers that answer at once, with the same callers and requests.
func measureEmptyHandlers(ctx context.Context, s *stage) (cost, error) {
	servers, err := startServers(usualInstances, func() (*server, error) { return s.startFloor(ctx) })
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
