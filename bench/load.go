package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// cost is what a load took.
type cost struct {
	done  int64
	took  time.Duration
	cpu   time.Duration // of the servers
	redis redisUsage
}

// target is what a load is put on.
type target struct {
	redis   *redisServer // nil: the servers are floors
	servers []*server
}

// measure runs a load and measures what it costs. The load returns how much it did, once that has come to its
// end everywhere.
func (t target) measure(ctx context.Context, load func() (int64, error)) (c cost, err error) {
	redisBefore, err := t.redis.usage(ctx)
	if err != nil {
		return c, err
	}
	cpuBefore, err := cpuTime(t.servers)
	if err != nil {
		return c, err
	}
	started := time.Now()
	if c.done, err = load(); err != nil {
		return c, err
	}
	c.took = time.Since(started)
	cpu, cpuErr := cpuTime(t.servers)
	usage, redisErr := t.redis.usage(ctx)
	c.cpu, c.redis = cpu-cpuBefore, usage.plus(redisBefore, -1)
	return c, errors.Join(cpuErr, redisErr)
}

func (c cost) plus(d cost) cost {
	return cost{c.done + d.done, c.took + d.took, c.cpu + d.cpu, c.redis.plus(d.redis, 1)}
}

func (c cost) rate() quantity { return quantity{float64(c.done) / c.took.Seconds(), "/s"} }

// cpuEach is the processor time of the servers for each that was done, and redisEach that of Redis.
func (c cost) cpuEach() quantity   { return c.each(c.cpu) }
func (c cost) redisEach() quantity { return c.each(c.redis.cpu) }

func (c cost) each(total time.Duration) quantity {
	return quantity{float64(total.Microseconds()) / float64(c.done), " µs"}
}

// perScript is how many shared one script call.
func (c cost) perScript() quantity {
	return quantity{float64(c.done) / float64(max(1, c.redis.commands["evalsha"])), ""}
}

// rounds are the turns that each load gets. Loads that are compared meet the same machine so.
const rounds = 5

// turn is a load that takes turns with others.
type turn struct {
	load func() (cost, error)
	sum  *cost // of all its turns
}

// takeTurns runs each load once to warm up, and then in turn.
func takeTurns(turns ...turn) error {
	for round := range 1 + rounds {
		for _, t := range turns {
			c, err := t.load()
			if err != nil {
				return err
			}
			if round > 0 {
				*t.sum = t.sum.plus(c)
			}
		}
	}
	return nil
}

// flatOut has callers do something again and again, as fast as they can, for a time. The first error ends it.
func flatOut(
	ctx context.Context, callers int, duration time.Duration, do func(caller int) error,
) (done int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var count atomic.Int64
	var calling sync.WaitGroup
	end := time.Now().Add(duration)
	for caller := range callers {
		calling.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				if err := do(caller); err != nil {
					cancel(err)
					return
				}
				count.Add(1)
			}
		})
	}
	calling.Wait()
	return count.Load(), context.Cause(ctx)
}

// paced has callers do something at a steady rate. due is when it should begin. If all callers are busy, it
// begins later, and that counts as delay.
func paced(
	ctx context.Context, callers, rate int, duration time.Duration, do func(caller int, due time.Time) error,
) (done int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := int(float64(rate) * duration.Seconds())
	dues := make(chan time.Time, total) // all fit: the clock must not wait for callers; closed after the last
	var calling sync.WaitGroup
	for caller := range callers {
		calling.Go(func() {
			for due := range dues {
				if err := do(caller, due); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for started := time.Now(); int(done) < total && ctx.Err() == nil; {
		for ; int(done) < min(total, int(time.Since(started).Seconds()*float64(rate))); done++ {
			dues <- time.Now()
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	close(dues)
	calling.Wait()
	return done, context.Cause(ctx)
}
