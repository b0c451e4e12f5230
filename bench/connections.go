package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// measureConnects opens sockets on one instance, as fast as it takes them.
func measureConnects(ctx context.Context, s *stage) ([]row, error) {
	floor, err := s.startFloor(ctx)
	if err != nil {
		return nil, err
	}
	least, _, err := s.measureDials(ctx, nil, floor)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	instance, err := s.startInstance(ctx, redis)
	if err != nil {
		return nil, err
	}
	found, waits, err := s.measureDials(ctx, redis, instance)
	if err != nil {
		return nil, err
	}
	return []row{
		{what: fmt.Sprintf("**sockets connected**, %s on one instance, %d at a time", thousands(int64(s.connections)), s.dialers),
			found: found.rate(), floor: least.rate(), ofFloor: bareSockets},
		{what: "CPU of the instance, a socket", found: found.cpuEach(), floor: least.cpuEach(), ofFloor: bareSockets},
		{what: "CPU of Redis, a socket", found: found.redisEach()},
		{what: "from dialing to the welcome, median", found: millis(quantile(waits, 0.5))},
		{what: "99th percentile", found: millis(quantile(waits, 0.99))},
	}, nil
}

const bareSockets = "bare gorilla/websocket"

func (s *stage) measureDials(ctx context.Context, redis *redisServer, to *server) (c cost, waits []time.Duration, err error) {
	crowd, err := s.gather(s.connections)
	if err != nil {
		return c, nil, err
	}
	c, err = s.measure(ctx, redis, []int{to.pid()}, func() (int64, error) {
		waits, err = crowd.dial(ctx, s.connections, to)
		return int64(s.connections), err
	})
	return c, waits, err
}

// measureIdle opens sockets on one instance and then leaves it alone.
func measureIdle(ctx context.Context, s *stage) ([]row, error) {
	floor, err := s.startFloor(ctx)
	if err != nil {
		return nil, err
	}
	least, err := s.measureMemory(ctx, floor)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	floor.end()
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	instance, err := s.startInstance(ctx, redis)
	if err != nil {
		return nil, err
	}
	found, err := s.measureMemory(ctx, instance)
	if err != nil {
		return nil, err
	}
	silence, err := s.silence(ctx, s.idle, redis, instance)
	if err != nil {
		return nil, err
	}
	commands, total := silence.commands()
	goroutines, err := instance.countGoroutines(ctx)
	if err != nil {
		return nil, err
	}
	quiet, err := s.measureQuiet(ctx)
	each := func(n int64, unit string) quantity { return quantity{float64(n) / float64(s.connections), unit} }
	return []row{
		{what: fmt.Sprintf("**memory of an idle socket**, %s on one instance", thousands(int64(s.connections))),
			found: each(found, " B"), floor: each(least, " B"), ofFloor: bareSockets},
		{what: "goroutines of an idle socket", found: each(int64(goroutines), "")},
		{what: "commands in Redis while all are idle, those within scripts too", found: quantity{total, "/s"}},
		{what: "which are, a second", text: commands},
		quiet,
	}, err
}

// measureMemory opens sockets on a server, and tells how much more memory it occupies when they are all there and idle.
func (s *stage) measureMemory(ctx context.Context, of *server) (bytes int64, err error) {
	before, err := settledBytes(ctx, of.pid())
	if err != nil {
		return 0, err
	}
	crowd, err := s.gather(s.connections)
	if err != nil {
		return 0, err
	}
	if _, err := crowd.dial(ctx, s.connections, of); err != nil {
		return 0, err
	}
	after, err := settledBytes(ctx, of.pid())
	if err != nil {
		return 0, err
	}
	arrived, err := crowd.arrivals(ctx)
	if err != nil {
		return 0, err
	}
	return after - before, arrived.fault(0) // none may have been closed
}

// commands are how many of each Redis ran in a second, by name, other than our own questions.
func (c cost) commands() (byName string, total float64) {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(c.redis.commands)) {
		if perSecond := float64(c.redis.commands[name]) / c.took.Seconds(); perSecond > 0 && name != "info" {
			words = append(words, fmt.Sprintf("%s %v", name, quantity{perSecond, ""}))
			total += perSecond
		}
	}
	return strings.Join(words, ", "), total
}

// countGoroutines ends a server with the signal at which the Go runtime prints where every goroutine is, and counts them.
func (s *server) countGoroutines(ctx context.Context) (int, error) {
	if err := s.command.Process.Signal(syscall.SIGQUIT); err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	select {
	case <-s.ended:
		return s.goroutines, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
