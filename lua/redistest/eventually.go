package redistest

import (
	"testing"
	"time"
)

const (
	patience = time.Minute // after which a test gives up; nothing is ever right because it was fast

	firstPause   = 500 * time.Microsecond
	longestPause = 20 * time.Millisecond
)

// Eventually looks again and again until what it sees is as it should be, and returns that. Between the looks it pauses, longer each time:
// who looks without a pause takes the processor time that what it waits for needs, and on a slow machine waits in vain.
func Eventually[T any](t testing.TB, want string, look func() (T, bool)) T {
	t.Helper()
	pause := firstPause
	for giveUp := time.Now().Add(patience); ; {
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
