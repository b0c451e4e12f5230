package presence

import (
	"testing"
	"time"

	"rollcall/lua/redistest"
)

// The cases are those of a test in lua: Lua and Go must decide alike.
func TestLeases_AndEntriesAreReadAsLuaReadsThem(t *testing.T) {
	cases := redistest.ReadLeaseCases(t)
	grace := time.Duration(cases.Grace) * time.Millisecond
	for _, c := range cases.Leases {
		lease, ok := parseLease(c.Lease)
		if ok != (c.Status != nil) || ok && lease.status(cases.Now, grace) != leaseStatus(*c.Status) {
			t.Errorf("lease %q: %v, %v", c.Lease, lease.status(cases.Now, grace), ok)
		}
	}
	var flat []string
	for incarnation, lease := range cases.Of {
		flat = append(flat, incarnation, lease)
	}
	leases, unreadable := parseLeases(flat)
	if unreadable != 1 || len(leases) != len(cases.Of)-1 {
		t.Errorf("%d leases are not readable, and %d are", unreadable, len(leases))
	}
	for _, c := range cases.Entries {
		e, ok := parseEntry(c.Entry)
		u := e.user("alice", leases, cases.Now, grace)
		if ok != (c.State != nil) || ok && u.State != State(*c.State) {
			t.Errorf("entry %q: %v, %v", c.Entry, u.State, ok)
		}
	}
}

func TestLease_IsLiveThenExpiredThenDead(t *testing.T) {
	for _, c := range []struct {
		lease storedLease
		want  leaseStatus
	}{
		{storedLease{deadline: noon + 1}, live},
		{storedLease{deadline: noon}, expired},
		{storedLease{deadline: noon - testGrace.Milliseconds() + 1}, expired},
		{storedLease{deadline: noon - testGrace.Milliseconds()}, dead},
		{storedLease{deadline: noon + 1000, fenced: true}, dead},
		{storedLease{deadline: noon - 3_600_000, extendedUntil: noon + 1}, expired},
		{storedLease{deadline: noon - 3_600_000, extendedUntil: noon}, dead},
	} {
		if got := c.lease.status(noon, testGrace); got != c.want {
			t.Errorf("%+v has the status %v, want %v", c.lease, got, c.want)
		}
	}
}

func TestLeases_HaveTheFirstLiveIncarnationSweepWhatIsDead(t *testing.T) {
	held, past := storedLease{deadline: noon + 1}, storedLease{deadline: noon}
	fenced := storedLease{fenced: true}
	for _, c := range []struct {
		leases  storedLeases
		sweeper string
		work    bool
	}{
		{storedLeases{}, "", false},
		{storedLeases{"b": held, "c": held, "a": past}, "b", false},
		{storedLeases{"b": held, "c": held, "a": past, "z": fenced}, "b", true},
		{storedLeases{"a": past, "z": fenced}, "", true},
	} {
		if got := c.leases.sweeper(noon, testGrace); got != c.sweeper {
			t.Errorf("of %v %q sweeps, want %q", c.leases, got, c.sweeper)
		}
		if got := c.leases.anyDead(noon, testGrace); got != c.work {
			t.Errorf("of %v there is something to sweep: %v, want %v", c.leases, got, c.work)
		}
	}
}
