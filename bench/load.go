package main

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// flatOut has callers do something again and again, as fast as they can, for a time. It returns how often it was done. The first
// error ends it.
func flatOut(ctx context.Context, callers int, duration time.Duration, do func(caller int) error) (done int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var count atomic.Int64
	errs := make([]error, callers)
	end := time.Now().Add(duration)
	var calling sync.WaitGroup
	for i := range callers {
		calling.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				if errs[i] = do(i); errs[i] != nil {
					cancel()
					return
				}
				count.Add(1)
			}
		})
	}
	calling.Wait()
	return count.Load(), cmp.Or(anyOf(errs), context.Cause(ctx))
}

// paced has something done at a steady rate for a time, by as many callers as there are. due is when it should have begun: if all
// callers are busy it begins later, and that counts as delay.
func paced(ctx context.Context, callers, rate int, duration time.Duration, do func(caller int, due time.Time) error) (done int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total := int(float64(rate) * duration.Seconds())
	dues := make(chan time.Time, total) // all fit: the clock must never wait for the callers; closed after the last
	errs := make([]error, callers)
	var calling sync.WaitGroup
	for i := range callers {
		calling.Go(func() {
			for due := range dues {
				if errs[i] = do(i, due); errs[i] != nil {
					cancel()
					return
				}
			}
		})
	}
	start := time.Now()
	for n := 0; n < total && ctx.Err() == nil; {
		for ; n < total && n < int(time.Since(start).Seconds()*float64(rate)); n++ {
			dues <- time.Now() // when it was released, for a timer of this process wakes up to 1 ms late
			done++
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	close(dues)
	calling.Wait()
	return done, cmp.Or(anyOf(errs), context.Cause(ctx))
}

// anyOf is one of the errors: callers that fail together mostly say the same.
func anyOf(errs []error) error { return cmp.Or(errs...) }
