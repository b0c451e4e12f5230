package main

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	// gcHeadroom is how much garbage may pile up between collections. A share of what lives, as Go has it by default, is too little for
	// an instance with few sockets, which then collects all the time under load, and too much for one with many.
	gcHeadroom                = 128 << 20
	gcLeast, gcMost           = 40, 400                // percent of what lives; Go's default is 100
	tuneEvery                 = 500 * time.Millisecond // seldom enough to cost nothing, often enough for a crowd that connects at once
	idleEvery                 = 5 * time.Second        // is looked at how little is allocated
	returnAbove       float64 = 0.1                    // of what lives: so much unused memory is given back when little is allocated
	quietBytesASecond         = 1 << 20
)

// gcPercent is what GOGC should be with so many bytes alive.
func gcPercent(live uint64) int {
	return int(min(gcMost, max(gcLeast, gcHeadroom*100/max(live, 1))))
}

// memory is what the runtime says of it.
type memory struct {
	live      uint64 // bytes, with stacks, after the last collection
	unused    uint64 // bytes that the process holds for nothing
	allocated uint64 // bytes since the start
}

func readMemory() memory {
	samples := []runtimemetrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
	}
	runtimemetrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	garbage := value(4) - min(value(4), value(0))
	return memory{live: value(0) + value(1), unused: value(2) + garbage, allocated: value(3)}
}

// wasteful says whether a process should give memory back: it holds much for nothing, and allocates too little to need it soon.
func wasteful(before, now memory, passed time.Duration) bool {
	rate := float64(now.allocated-before.allocated) / passed.Seconds()
	return rate < quietBytesASecond && float64(now.unused) > returnAbove*float64(now.live)
}

// tendMemory keeps the garbage collector tuned to what lives, and gives memory back when the instance is idle, until the context ends.
// Who has set GOGC or GOMEMLIMIT knows better.
func tendMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	ticks := time.NewTicker(tuneEvery)
	defer ticks.Stop()
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := 0
	for before, since := readMemory(), time.Now(); ; {
		now := readMemory()
		if passed := time.Since(since); passed >= idleEvery {
			if wasteful(before, now, passed) {
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
