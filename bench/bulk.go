package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// streams is how many streams push at a time, half of them to each of two instances.
const streams = 4

// measureBulk pushes without a request for each: streamed, and many users a request.
func measureBulk(ctx context.Context, s *stage) ([]row, error) {
	p, err := s.preparePushing(ctx, usualInstances, true)
	if err != nil {
		return nil, err
	}
	if _, err := p.flatOut(ctx, s.duration/5); err != nil { // to warm up
		return nil, err
	}
	single, err := p.flatOut(ctx, s.duration)
	if err != nil {
		return nil, err
	}
	if _, err := p.streamed(ctx, s.duration/5); err != nil {
		return nil, err
	}
	streamed, err := p.streamed(ctx, s.duration)
	if err != nil {
		return nil, err
	}
	const floor = "one request each"
	return []row{
		{what: fmt.Sprintf("**streamed pushes** (NDJSON), %d streams", streams), found: streamed.rate(), floor: single.rate(), ofFloor: floor},
		{what: "CPU of the instances, a push", found: streamed.cpuEach(), floor: single.cpuEach(), ofFloor: floor},
		{what: "CPU of Redis, a push", found: streamed.redisEach(), floor: single.redisEach(), ofFloor: floor},
		{what: "pushes that share a script call", found: streamed.perScript(), floor: single.perScript(), ofFloor: floor},
	}, p.fault(ctx)
}

// streamed pushes over streams as fast as they take it, and measures the cost until all have arrived.
func (p *pushing) streamed(ctx context.Context, duration time.Duration) (cost, error) {
	return p.untilArrived(ctx, func() (int64, error) {
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
