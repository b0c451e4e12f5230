package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// report is what was played, and what was seen meanwhile.
type report struct {
	mu sync.Mutex
	// mu guards the following
	times   map[string][]time.Duration // of a fault, until what it broke was right
	counts  map[string]map[string]int  // of a fault, what was seen
	slowest time.Duration              // call, since it was last asked
	calls   map[string]time.Duration   // of a fault, the slowest call
}

func newReport() *report {
	return &report{times: map[string][]time.Duration{}, counts: map[string]map[string]int{},
		calls: map[string]time.Duration{}}
}

// played notes how long it took until something was right.
func (r *report) played(name string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times[name] = append(r.times[name], took)
}

// count adds to what was seen during a fault.
func (r *report) count(name, what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[name] == nil {
		r.counts[name] = map[string]int{}
	}
	r.counts[name][what] += n
	r.calls[name] = max(r.calls[name], r.slowest)
	r.slowest = 0
}

// called notes how long an instance took to answer.
func (r *report) called(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, took)
}

// String makes a table. Lost pushes were accepted and did not arrive. Users who were read as reconnecting or
// offline had a socket all the time, on an instance that could reach Redis unless no instance could.
func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "played\tmedian ms\tmax ms\tpushes\tlost\t"+
		"read reconnecting\tread offline\tslowest call ms\t  fault")
	for _, name := range slices.Sorted(maps.Keys(r.times)) {
		times := slices.SortedFunc(slices.Values(r.times[name]), cmp.Compare)
		median, most := times[(len(times)-1)/2].Milliseconds(), times[len(times)-1].Milliseconds()
		if counts, whole := r.counts[name]; whole {
			fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", len(times), median, most,
				counts["pushes"], counts["lost"], counts["reconnecting"], counts["offline"],
				r.calls[name].Milliseconds(), name)
		} else {
			fmt.Fprintf(table, "%d\t%d\t%d\t\t\t\t\t\t  %s\n", len(times), median, most, name)
		}
	}
	_ = table.Flush()
	return out.String()
}
