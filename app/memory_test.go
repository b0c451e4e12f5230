package main

import (
	"testing"
	"time"
)

func TestMemory_TheCollectorLeavesAFixedHeadroomWithinLimits(t *testing.T) {
	for live, want := range map[uint64]int{0: gcMost, 1 << 20: gcMost, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 40: gcLeast} {
		if got := gcPercent(live); got != want {
			t.Errorf("with %d bytes alive: %d, want %d", live, got, want)
		}
	}
}

func TestMemory_IsGivenBackOnlyWhenMuchIsUnusedAndLittleIsAllocated(t *testing.T) {
	const second = time.Second
	before := memory{allocated: 1 << 30}
	for name, c := range map[string]struct {
		now  memory
		want bool
	}{
		"idle and full of holes": {memory{live: 100 << 20, unused: 50 << 20, allocated: 1 << 30}, true},
		"idle and tidy":          {memory{live: 100 << 20, unused: 5 << 20, allocated: 1 << 30}, false},
		"busy":                   {memory{live: 100 << 20, unused: 50 << 20, allocated: 1<<30 + 100<<20}, false},
	} {
		if got := wasteful(before, c.now, second); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if m := readMemory(); m.live == 0 || m.allocated == 0 {
		t.Errorf("the runtime says %+v", m)
	}
}
