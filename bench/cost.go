package main

import (
	"context"
	"errors"
	"time"
)

// cost is what a load took.
type cost struct {
	done  int64
	took  time.Duration
	cpu   time.Duration // processor time of the processes looked at
	redis work          // without a Redis: nothing
}

// measure measures the cost of a load to processes, and to Redis unless there is none. The load returns how much it did, when that
// has come to its end everywhere.
func (s *stage) measure(ctx context.Context, redis *redisServer, processes []int, load func() (done int64, err error)) (c cost, err error) {
	before, err := redis.work(ctx)
	if err != nil {
		return c, err
	}
	cpu, err := cpuTime(processes...)
	if err != nil {
		return c, err
	}
	started := time.Now()
	if c.done, err = load(); err != nil {
		return c, err
	}
	c.took = time.Since(started)
	cpuAfter, errCPU := cpuTime(processes...)
	after, errRedis := redis.work(ctx)
	c.cpu, c.redis = cpuAfter-cpu, after.since(before)
	return c, errors.Join(errCPU, errRedis)
}

// plus is the cost of two loads.
func (c cost) plus(d cost) cost {
	return cost{done: c.done + d.done, took: c.took + d.took, cpu: c.cpu + d.cpu, redis: c.redis.plus(d.redis)}
}

// turn is a load that takes turns with others.
type turn struct {
	load func() (cost, error)
	sum  *cost // of all its turns
}

// turnRounds are how many turns each load gets: so all are measured while the machine is as busy.
const turnRounds = 5

// takeTurns runs the loads in turn, and adds up what they cost.
func takeTurns(turns ...turn) error {
	for range turnRounds {
		for _, t := range turns {
			one, err := t.load()
			if err != nil {
				return err
			}
			*t.sum = t.sum.plus(one)
		}
	}
	return nil
}

// warmUp runs each load once.
func warmUp(turns ...turn) error {
	for _, t := range turns {
		if _, err := t.load(); err != nil {
			return err
		}
	}
	return nil
}

// silence is the cost of a time in which nobody asks the servers for anything.
func (s *stage) silence(ctx context.Context, duration time.Duration, redis *redisServer, servers ...*server) (cost, error) {
	return s.measure(ctx, redis, pids(servers), func() (int64, error) { return 1, wait(ctx, duration) })
}

func (c cost) rate() quantity {
	return quantity{float64(c.done) / c.took.Seconds(), "/s"}
}

// cpuEach is the processor time of one among all that was done.
func (c cost) cpuEach() quantity { return c.each(c.cpu) }

// redisEach is that of Redis.
func (c cost) redisEach() quantity { return c.each(c.redis.cpu) }

func (c cost) each(total time.Duration) quantity {
	return quantity{float64(total.Microseconds()) / float64(c.done), " µs"}
}

// perScript is how much shared one script call.
func (c cost) perScript() quantity {
	return quantity{float64(c.done) / float64(max(1, c.redis.commands["evalsha"])), ""}
}
