package main

import (
	"testing"
	"time"

	"rollcall/lua/redistest"
)

func TestPresence_AUserWhoConnectsAndClosesAllTheTimeCausesTwoEntriesASecondAtMost(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	began := time.Now()
	for range 100 {
		mallory := connect(t, a, "mallory")
		mallory.leave()
	}
	wantState(t, b, "mallory", "offline", 0)
	most := 2 * (1 + int(time.Since(began)/time.Second))
	entries := redis.Changes(redis.Client(), "rollcall:1:{0}:log")
	if len(entries) > most {
		t.Errorf("%d entries in the log, want %d at most in this time", len(entries), most)
	}
	for n, entry := range entries {
		if want := []string{"mallory online", "mallory offline"}[n%2]; entry != want {
			t.Errorf("entry %d is %s, want %s", n, entry, want)
		}
	}
	if len(entries)%2 != 0 {
		t.Errorf("the log ends with %s", entries[len(entries)-1])
	}
}
