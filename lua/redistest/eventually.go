package redistest

import (
	"testing"
	"time"
)

// Patience is how long a test waits for something before it gives up. Nothing is ever right because it was
// fast.
const Patience = time.Minute

const (
	firstPause   = 500 * time.Microsecond
	longestPause = 20 * time.Millisecond
)

// Eventually looks again and again until it sees what the test wants, and returns that. Between two looks it
// pauses, each time a little longer. A loop without a pause would take the processor time that the awaited
// work needs, and on a slow machine it would wait in vain.
func Eventually[T any](t testing.TB, want string, look func() (T, bool)) T {
	t.Helper()
	pause := firstPause
	for giveUp := time.Now().Add(Patience); ; {
		got, ok := look()
		if ok {
			return got
		}
		if time.Now().After(giveUp) {
			t.Fatalf("want %s, got %v", want, got)
		}
		<-time.After(pause)
		pause = min(pause*3/2, longestPause)
	}
}

// Await is Eventually for a condition that has no more to show than whether it holds.
func Await(t testing.TB, want string, holds func() bool) {
	t.Helper()
	Eventually(t, want, func() (string, bool) { return "not yet", holds() })
}
