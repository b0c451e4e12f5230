package main

import (
	"context"
	"fmt"
	"time"
)

// instancesPushed are how many instances share the sockets of the measurements "pushes" and "output": of n, one in n pushes arrives where
// its socket is.
var instancesPushed = []int{1, usualInstances, mostInstances}

const (
	usualInstances = 2 // the number that most rows are about
	mostInstances  = 8
	onSoMany       = "on %d"
)

// measurePushes pushes to every user in turn, flat out and then at a steady rate: on Rollcall, and on servers without Redis.
func measurePushes(ctx context.Context, s *stage) ([]row, error) {
	empty, err := measureEmptyHandlers(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("empty handlers: %w", err)
	}
	found, local := map[int]pushed{}, map[int]pushed{}
	for _, n := range instancesPushed {
		if found[n], local[n], err = s.pushTo(ctx, n); err != nil {
			return nil, fmt.Errorf("%d servers: %w", n, err)
		}
	}
	const floor = "without Redis"
	usual, usualFloor := found[usualInstances], local[usualInstances]
	rows := []row{
		{what: fmt.Sprintf("**HTTP pushes**, one request each, %d instances, %s sockets, %d bytes, %d at a time", usualInstances, thousands(int64(s.users)), s.payload, s.callers),
			found: usual.full.rate(), floor: usualFloor.full.rate(), ofFloor: floor},
		{what: "of which HTTP alone: requests to empty Echo handlers", found: empty.rate()},
		{what: "its CPU, a request", found: empty.cpuEach()},
	}
	for _, n := range instancesPushed {
		rows = append(rows, row{what: fmt.Sprintf("CPU of the instances, a push, "+onSoMany, n), found: found[n].full.cpuEach(), floor: local[n].full.cpuEach(), ofFloor: floor})
	}
	rows = append(rows,
		row{what: fmt.Sprintf("CPU of Redis, a push, "+onSoMany, usualInstances), found: usual.full.redisEach()},
		row{what: "pushes that share a script call", found: usual.full.perScript()},
		row{what: fmt.Sprintf("**at %s pushes/s**, from request to socket, median", thousands(int64(s.rate))),
			found: millis(quantile(usual.delays, 0.5)), floor: millis(quantile(usualFloor.delays, 0.5)), ofFloor: floor},
		row{what: "99th percentile", found: millis(quantile(usual.delays, 0.99)), floor: millis(quantile(usualFloor.delays, 0.99)), ofFloor: floor},
	)
	for _, n := range instancesPushed {
		rows = append(rows, row{what: fmt.Sprintf("CPU of the instances, a push, "+onSoMany, n), found: found[n].steady.cpuEach(), floor: local[n].steady.cpuEach(), ofFloor: floor})
	}
	var sent int64
	var arrived Arrivals
	for _, n := range instancesPushed {
		sent, arrived = sent+found[n].sent, arrived.plus(found[n].arrived)
	}
	return append(rows, arrived.row("all these pushes", sent)), nil
}

// pushed is what pushes took.
type pushed struct {
	full, steady cost
	delays       []time.Duration // of the steady ones, sorted
	sent         int64
	arrived      Arrivals
}

// pushTo pushes to sockets of so many instances, and, in turn with them, of as many servers without Redis.
func (s *stage) pushTo(ctx context.Context, servers int) (found, floor pushed, err error) {
	_, err = onStage(ctx, s.house, func(ctx context.Context, s *stage) (none struct{}, err error) {
		local, err := s.preparePushing(ctx, setting{servers: servers, sockets: s.users})
		if err != nil {
			return none, fmt.Errorf("without redis: %w", err)
		}
		p, err := s.preparePushing(ctx, setting{servers: servers, sockets: s.users, routed: true})
		if err != nil {
			return none, err
		}
		return none, pushInTurn(ctx, map[*pushing]*pushed{local: &floor, p: &found})
	})
	return found, floor, err
}

// pushInTurn pushes flat out, in turn here and there, and then at the steady rate.
func pushInTurn(ctx context.Context, all map[*pushing]*pushed) error {
	var full, steady []turn
	for p, sum := range all {
		full = append(full, turn{func() (cost, error) { return p.flatOut(ctx, p.duration/turnRounds) }, &sum.full})
		steady = append(steady, turn{func() (cost, error) { return p.steady(ctx, p.rate, p.duration/turnRounds) }, &sum.steady})
	}
	if err := warmUp(full...); err != nil {
		return err
	}
	if err := takeTurns(full...); err != nil {
		return err
	}
	if err := takeTurns(steady...); err != nil {
		return err
	}
	for p, sum := range all {
		var err error
		if sum.delays, err = p.crowd.delays(ctx); err != nil {
			return err
		}
		if sum.arrived, err = finalArrivals(ctx, p.crowd.arrivals); err != nil {
			return err
		}
		sum.sent = p.sent.Load()
		if err = sum.arrived.fault(sum.sent); err != nil {
			return err
		}
	}
	return nil
}
