package main

import (
	"context"
	"fmt"
	"time"
)

// measureOutput tells how many bytes Redis sends for a push, and so all instances read, on how many instances there are. Pushes come one
// at a time: so none shares its call with another, and the bytes do not depend on chance. A push whose sockets are all where it arrived is
// not published at all: only the call is answered.
func measureOutput(ctx context.Context, s *stage) ([]row, error) {
	found := map[int]float64{}
	for _, n := range instancesPushed {
		one, err := onStage(ctx, s.house, func(ctx context.Context, s *stage) (cost, error) { return s.pushOneByOne(ctx, n) })
		if err != nil {
			return nil, fmt.Errorf("%d instances: %w", n, err)
		}
		found[n] = float64(one.redis.output) / float64(one.done)
	}
	var rows []row
	what := fmt.Sprintf("**sent by Redis**, a push of %d bytes, one at a time", s.payload)
	for _, n := range instancesPushed {
		rows = append(rows, row{what: fmt.Sprintf(what+", "+onSoMany, n), found: quantity{found[n], " B"}})
		what = "a push"
	}
	crossing := func(n int) quantity { // of n pushes, one has its socket where it arrived
		return quantity{(found[n] - found[1]) * float64(n) / float64(n-1), " B"}
	}
	return append(rows, row{what: fmt.Sprintf("of which for crossing to another instance, a push that does, "+onSoMany, mostInstances),
		found: crossing(mostInstances), floor: crossing(usualInstances), ofFloor: fmt.Sprintf(onSoMany, usualInstances)}), nil
}

func (s *stage) pushOneByOne(ctx context.Context, servers int) (cost, error) {
	p, err := s.preparePushing(ctx, setting{servers: servers, sockets: s.users, routed: true, still: true})
	if err != nil {
		return cost{}, err
	}
	found, err := p.untilArrived(ctx, func() (int64, error) {
		return flatOut(ctx, 1, s.duration, func(caller int) error { return p.push(caller, time.Time{}) })
	})
	if err != nil {
		return cost{}, err
	}
	return found, p.fault(ctx)
}
