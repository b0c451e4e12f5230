package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	instancesHeld = 6
	holdRate      = 500 // pushes a second
)

// holdLimit leaves time to open the sockets.
func holdLimit(s settings) time.Duration { return s.hold + 10*time.Minute }

// measureHold keeps very many sockets open on some instances while pushes go to all of them in turn.
func measureHold(ctx context.Context, s *stage) ([]row, error) {
	if each := (s.held + instancesHeld - 1) / instancesHeld; each > socketsFor(s.files) {
		return nil, fmt.Errorf("-held is %d: an instance would hold %d sockets, but may have only %d files open: raise ulimit -n", s.held, each, s.files)
	}
	p, err := s.preparePushing(ctx, setting{servers: instancesHeld, sockets: s.held, routed: true})
	if err != nil {
		return nil, err
	}
	load, err := p.steady(ctx, holdRate, s.hold)
	if err != nil {
		arrived, errAsk := p.crowd.arrivals(ctx)
		return nil, errors.Join(fmt.Errorf("%w; arrived so far: %+v", err, arrived), errAsk)
	}
	var memory int64
	for _, one := range p.servers {
		bytes, err := residentBytes(one.pid())
		if err != nil {
			return nil, err
		}
		memory += bytes
	}
	delays, err := p.crowd.delays(ctx)
	if err != nil {
		return nil, err
	}
	arrived, err := finalArrivals(ctx, p.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	byName, commands := load.commands()
	return []row{
		{what: fmt.Sprintf("**sockets held** for %v, %d instances, %d pushes/s to all in turn: held · ended", s.hold, instancesHeld, holdRate),
			text: fmt.Sprintf("%s · %s", thousands(int64(s.held)), thousands(arrived.Ended))},
		arrived.row("all these pushes", p.sent.Load()),
		{what: "from request to socket, median", found: millis(quantile(delays, 0.5))},
		{what: "99th percentile", found: millis(quantile(delays, 0.99))},
		{what: "memory of the instances under this load, all of it, a socket", found: quantity{float64(memory) / float64(s.held), " B"}},
		{what: "CPU of the instances, of one core", found: quantity{100 * load.cpu.Seconds() / load.took.Seconds(), "%"}},
		{what: "commands in Redis, those within scripts too", found: quantity{commands, "/s"}},
		{what: "which are, a second", text: byName},
	}, arrived.fault(p.sent.Load())
}
