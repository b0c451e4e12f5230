package gctune

import (
	"testing"
	"time"
)

func TestGCPercent_LeavesAFixedHeadroomWithinLimits(t *testing.T) {
	for live, want := range map[uint64]int{
		0: maxPercent, 1 << 20: maxPercent, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 40: minPercent,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("with %d bytes alive: %d, want %d", live, got, want)
		}
	}
}

func TestIsWasteful_OnlyIfMuchIsUnusedAndLittleIsAllocated(t *testing.T) {
	before := usage{allocated: 1 << 30}
	for name, c := range map[string]struct {
		now  usage
		want bool
	}{
		"idle and full of holes": {usage{live: 100 << 20, unused: 50 << 20, allocated: 1 << 30}, true},
		"idle and tidy":          {usage{live: 100 << 20, unused: 5 << 20, allocated: 1 << 30}, false},
		"busy": {usage{live: 100 << 20, unused: 50 << 20, allocated: 1<<30 + 100<<20},
			false},
	} {
		if got := isWasteful(before, c.now, time.Second); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestReadUsage_KnowsTheRuntimesMetrics(t *testing.T) {
	if now := readUsage(); now.live == 0 || now.allocated == 0 {
		t.Errorf("the runtime says %+v", now)
	}
}
