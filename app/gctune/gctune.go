// Package gctune fits Go's garbage collector to an instance. Between two collections as much garbage may pile
// up as a fixed headroom has room for, and an idle process gives unused memory back to the system.
//
// It is here for the row "memory of an idle socket" of docs/benchmarks.md: 12.1 kB with it, 14.8 kB without.
// A push takes 54 µs of an instance's processor time with it, 60 µs without.
package gctune

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how much garbage may pile up between two collections. Go's default is a share of what is
	// alive. That is too little for an instance with few sockets, which then collects all the time under
	// load, and too much for one with many.
	headroom               = 128 << 20 // bytes
	minPercent, maxPercent = 40, 400   // of what is alive; Go's default is 100

	tuneEvery = 500 * time.Millisecond // soon enough for many clients that connect at once; costs nothing

	// Every idleEvery, a process that has allocated less than idleRate gives its unused memory back, if that
	// is more than unusedShare of what is alive.
	idleEvery           = 5 * time.Second
	idleRate            = 1 << 20 // bytes a second
	unusedShare float64 = 0.1
)

// Run tunes the garbage collector until the context ends, and then sets it back. It does nothing if GOGC or
// GOMEMLIMIT is set: the operator knows better.
func Run(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	ticks := time.NewTicker(tuneEvery)
	defer ticks.Stop()
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := 0
	for before, since := readUsage(), time.Now(); ; {
		now := readUsage()
		if passed := time.Since(since); passed >= idleEvery {
			if isWasteful(before, now, passed) {
				debug.FreeOSMemory()
			}
			before, since = now, time.Now()
		}
		if wanted := gcPercent(now.live); wanted != percent {
			percent = wanted
			debug.SetGCPercent(percent)
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// gcPercent is what GOGC should be with so many bytes alive.
func gcPercent(live uint64) int {
	return int(min(maxPercent, max(minPercent, headroom*100/max(live, 1))))
}

// usage is what the runtime says about memory, in bytes.
type usage struct {
	live      uint64 // heap and stacks, after the last collection
	unused    uint64 // held by the process for nothing
	allocated uint64 // since the start
}

func readUsage() usage {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	live, stacks, free, allocated, objects := value(0), value(1), value(2), value(3), value(4)
	garbage := objects - min(objects, live)
	return usage{live: live + stacks, unused: free + garbage, allocated: allocated}
}

// isWasteful reports whether a process should give memory back: it holds much for nothing, and allocates too
// little to need it soon.
func isWasteful(before, now usage, passed time.Duration) bool {
	rate := float64(now.allocated-before.allocated) / passed.Seconds()
	return rate < idleRate && float64(now.unused) > unusedShare*float64(now.live)
}
