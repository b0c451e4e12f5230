package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// streams is how many streams push at a time, half of them to each of two instances.
const streams = 4

// measureBulk pushes without a request for each: streamed, and many users a request; in turn with one request each.
func measureBulk(ctx context.Context, s *stage) ([]row, error) {
	p, err := s.preparePushing(ctx, setting{servers: usualInstances, sockets: s.users, routed: true})
	if err != nil {
		return nil, err
	}
	toMany, err := s.preparePushing(ctx, setting{servers: usualInstances, sockets: manyPushes, routed: true, shared: true})
	if err != nil {
		return nil, fmt.Errorf("many a request: %w", err)
	}
	var single, streamed, many cost
	var turns []turn
	for sum, load := range map[*cost]func(context.Context, time.Duration) (cost, error){
		&single: p.flatOut, &streamed: p.streamed, &many: toMany.manyEach,
	} {
		turns = append(turns, turn{func() (cost, error) { return load(ctx, s.duration/turnRounds) }, sum})
	}
	if err := warmUp(turns...); err != nil {
		return nil, err
	}
	if err := takeTurns(turns...); err != nil {
		return nil, err
	}
	const floor = "one request each"
	return []row{
		{what: fmt.Sprintf("**streamed pushes** (NDJSON), %d streams", streams), found: streamed.rate(), floor: single.rate(), ofFloor: floor},
		{what: "CPU of the instances, a push", found: streamed.cpuEach(), floor: single.cpuEach(), ofFloor: floor},
		{what: "CPU of Redis, a push", found: streamed.redisEach(), floor: single.redisEach(), ofFloor: floor},
		{what: "pushes that share a script call", found: streamed.perScript(), floor: single.perScript(), ofFloor: floor},
		{what: fmt.Sprintf("**%s users a request**, %d at a time", thousands(manyPushes), manyCallers), found: many.rate(), floor: single.rate(), ofFloor: floor},
		{what: "CPU of the instances, a push", found: many.cpuEach(), floor: single.cpuEach(), ofFloor: floor},
		{what: "CPU of Redis, a push", found: many.redisEach(), floor: single.redisEach(), ofFloor: floor},
	}, errors.Join(p.fault(ctx), toMany.fault(ctx))
}

// streamed pushes over streams as fast as they take it, and measures the cost until all have arrived.
func (p *pushing) streamed(ctx context.Context, duration time.Duration) (cost, error) {
	return p.untilArrivedUntimed(ctx, func() (int64, error) {
		counts, errs := make([]int64, streams), make([]error, streams)
		var streaming sync.WaitGroup
		for i := range streams {
			streaming.Go(func() {
				counts[i], errs[i] = p.callers[i].stream(duration, func() (int64, []byte) { return p.next(i, time.Time{}) })
			})
		}
		streaming.Wait()
		var total int64
		for _, count := range counts {
			total += count
		}
		return total, anyOf(errs)
	})
}

// manyEach pushes to all of so many users with each request, as fast as the callers can, and measures the cost until all have arrived.
func (p *pushing) manyEach(ctx context.Context, duration time.Duration) (cost, error) {
	users := make([]string, manyPushes)
	for i := range users {
		users[i] = strconv.Quote(userName(int64(i)))
	}
	list := `,"users":[` + strings.Join(users, ",") + `]`
	return p.untilArrivedUntimed(ctx, func() (int64, error) {
		calls, err := flatOut(ctx, manyCallers, duration, func(caller int) error { return p.pushMany(caller, list) })
		return calls * manyPushes, err
	})
}

// pushMany pushes the same to all users.
func (p *pushing) pushMany(caller int, list string) error {
	number := p.sent.Add(manyPushes)/manyPushes - 1
	answer, err := p.callers[caller].post("/push", stamp(number, time.Time{}, p.payload), list)
	if took := bytes.Count(answer, []byte(`"instances":1`)); err == nil && took != manyPushes {
		return fmt.Errorf("push to %d users: one instance took it of %d only", manyPushes, took)
	}
	return err
}
