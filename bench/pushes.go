package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// instancesPushed are how many instances share the sockets. On n instances, one in n pushes arrives where its
// socket is.
var instancesPushed = []int{1, 2, 8}

// measurePushes pushes to every user in turn, flat out and then at a steady rate: on Rollcall, and in turn
// with it on as many floors.
func measurePushes(ctx context.Context, e *env) (rows []row, err error) {
	compared := against("without Redis")
	var sent, received int64
	for _, n := range instancesPushed {
		found, least, err := pushInTurn(ctx, e, n)
		if err != nil {
			return rows, fmt.Errorf("on %d: %w", n, err)
		}
		full := fmt.Sprintf("**pushes** on %d, one request each, %s sockets, %d bytes, %d at a time",
			n, thousands(users), payload, callers)
		steady := fmt.Sprintf("at %d pushes/s on %d, from request to socket, median", steadyRate, n)
		rows = append(rows,
			compared(full, found.full.rate(), least.full.rate()),
			compared("CPU of the instances, a push", found.full.cpuEach(), least.full.cpuEach()),
			row{what: "CPU of Redis, a push", found: found.full.redisEach()},
			row{what: "pushes that share a script call", found: found.full.perScript()},
			compared(steady, found.clients.quantile(0.5), least.clients.quantile(0.5)),
			compared("99th percentile", found.clients.quantile(0.99), least.clients.quantile(0.99)),
			compared("CPU of the instances, a push", found.steady.cpuEach(), least.steady.cpuEach()),
		)
		sent, received = sent+found.sent.Load(), received+found.clients.received.Load()
	}
	return append(rows, row{what: "all these pushes: sent · received, each once",
		text: thousands(sent) + " · " + thousands(received)}), nil
}

// pushInTurn pushes to sockets of n instances, and, in turn with them, of n floors.
func pushInTurn(ctx context.Context, parent *env, n int) (found, least *pushing, err error) {
	e := parent.child()
	defer e.close()
	if least, err = e.preparePushing(ctx, n, false); err != nil {
		return nil, nil, err
	}
	if found, err = e.preparePushing(ctx, n, true); err != nil {
		return nil, nil, err
	}
	var full, steady []turn
	for _, p := range []*pushing{least, found} {
		full = append(full, turn{func() (cost, error) { return p.flatOut(ctx, e) }, &p.full})
		steady = append(steady, turn{func() (cost, error) { return p.atSteadyRate(ctx, e) }, &p.steady})
	}
	if err = takeTurns(full...); err == nil {
		err = takeTurns(steady...)
	}
	return found, least, err
}

// pushing is servers, clients, and backends that push to them.
type pushing struct {
	target
	clients  *fleet
	backends []*backend
	turns    []atomic.Int64 // for each floor, or for all instances: the pushes that were taken from it
	sent     atomic.Int64
	sum      atomic.Int64 // of their numbers

	full, steady cost
}

func (e *env) preparePushing(ctx context.Context, n int, rollcall bool) (p *pushing, err error) {
	p = &pushing{clients: &fleet{clients: users}, turns: make([]atomic.Int64, n)}
	if rollcall {
		p.turns = p.turns[:1]
		if p.redis, err = e.startRedis(ctx); err != nil {
			return nil, err
		}
		p.servers, err = e.startInstances(ctx, n, p.redis)
	} else {
		p.servers, err = e.startFloors(ctx, n)
	}
	if err != nil {
		return nil, err
	}
	if _, err = e.connect(p.clients, p.servers); err != nil {
		return nil, err
	}
	p.backends, err = e.dialBackends(callers, p.servers)
	return p, err
}

// next is the next push of a backend. Floors can only reach their own sockets: user u is on floor u modulo n.
func (p *pushing) next(backend int, due time.Time) (user int, data []byte) {
	queue := backend % len(p.turns)
	number := (p.turns[queue].Add(1)-1)*int64(len(p.turns)) + int64(queue)
	p.sent.Add(1)
	p.sum.Add(number)
	return int(number % users), stamp(number, due)
}

func (p *pushing) push(backend int, due time.Time) error {
	user, data := p.next(backend, due)
	return p.backends[backend].postExpecting("/push/"+userName(user), data, "", `"instances":1`, 1)
}

// flatOut pushes as fast as the backends can.
func (p *pushing) flatOut(ctx context.Context, e *env) (cost, error) {
	return p.measure(ctx, func() (int64, error) {
		push := func(backend int) error { return p.push(backend, time.Time{}) }
		return flatOut(ctx, callers, e.turn(), push)
	})
}

// atSteadyRate pushes at a rate that leaves time to spare, so that delays are not those of queues.
func (p *pushing) atSteadyRate(ctx context.Context, e *env) (cost, error) {
	return p.measure(ctx, func() (int64, error) { return paced(ctx, callers, steadyRate, e.turn(), p.push) })
}

// measure measures the cost of a load until all that was pushed has arrived.
func (p *pushing) measure(ctx context.Context, load func() (int64, error)) (cost, error) {
	return p.target.measure(ctx, func() (int64, error) {
		done, err := load()
		if err == nil {
			err = p.clients.await(ctx, p.sent.Load(), p.sum.Load())
		}
		return done, err
	})
}

// The loads of measureStreams.
const (
	streams     = 4    // at the same time
	manyUsers   = 1000 // in one request
	manyCallers = 4
)

// measureStreams pushes without a request for each push, in turn with one request each.
func measureStreams(ctx context.Context, e *env) ([]row, error) {
	p, err := e.preparePushing(ctx, 2, true)
	if err != nil {
		return nil, err
	}
	var single, streamed, many cost
	err = takeTurns(
		turn{func() (cost, error) { return p.flatOut(ctx, e) }, &single},
		turn{func() (cost, error) { return p.stream(ctx, e) }, &streamed},
		turn{func() (cost, error) { return p.pushToMany(ctx, e) }, &many},
	)
	compared := against("one request each")
	rows := func(what string, found cost) []row {
		return []row{
			compared(what, found.rate(), single.rate()),
			compared("CPU of the instances, a push", found.cpuEach(), single.cpuEach()),
			compared("CPU of Redis, a push", found.redisEach(), single.redisEach()),
		}
	}
	return append(
		rows(fmt.Sprintf("**streamed pushes** (NDJSON), %d streams, on 2", streams), streamed),
		rows(fmt.Sprintf("**%d users a request**, %d at a time, on 2", manyUsers, manyCallers), many)...,
	), err
}

// stream pushes over streams as fast as they take it.
func (p *pushing) stream(ctx context.Context, e *env) (cost, error) {
	return p.measure(ctx, func() (int64, error) {
		var total atomic.Int64
		errs := make([]error, streams)
		var streaming sync.WaitGroup
		for i := range streams {
			streaming.Go(func() {
				next := func() (int, []byte) { return p.next(i, time.Time{}) }
				lines, err := p.backends[i].stream(e.turn(), next)
				total.Add(lines)
				errs[i] = err
			})
		}
		streaming.Wait()
		return total.Load(), errors.Join(errs...)
	})
}

// pushToMany pushes the same to the first 1,000 users with each request.
func (p *pushing) pushToMany(ctx context.Context, e *env) (cost, error) {
	names := make([]string, manyUsers)
	for i := range names {
		names[i] = strconv.Quote(userName(i))
	}
	more := `,"users":[` + strings.Join(names, ",") + `]`
	p.clients.sharing = true
	defer func() { p.clients.sharing = false }()
	return p.measure(ctx, func() (int64, error) {
		data := stamp(0, time.Time{}) // all have the number 0, which adds nothing to the sum
		calls, err := flatOut(ctx, manyCallers, e.turn(), func(backend int) error {
			p.sent.Add(manyUsers)
			return p.backends[backend].postExpecting("/push", data, more, `"instances":1`, manyUsers)
		})
		return calls * manyUsers, err
	})
}
