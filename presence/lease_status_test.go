package presence

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// The cases are those of a test in lua: Lua and Go must decide alike.
func TestGo_DecidesTheStatusOfEveryLeaseAndTheStateOfEveryUser(t *testing.T) {
	text, err := os.ReadFile("../lua/testdata/lease_status.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Now, Grace int64
		Leases     []struct {
			Lease  string
			Status *int
		}
		Of      map[string]string
		Entries []struct {
			Entry string
			State *int
		}
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	grace := time.Duration(cases.Grace) * time.Millisecond
	for _, c := range cases.Leases {
		lease, ok := parseLease(c.Lease)
		if ok != (c.Status != nil) || ok && lease.Status(cases.Now, grace) != LeaseStatus(*c.Status) {
			t.Errorf("lease %q: %v, %v", c.Lease, lease.Status(cases.Now, grace), ok)
		}
	}
	var flat []string
	for token, lease := range cases.Of {
		flat = append(flat, token, lease)
	}
	leases, unreadable := parseLeases(flat)
	if unreadable != 1 || len(leases) != len(cases.Of)-1 {
		t.Errorf("%d leases can't be read, and %d can", unreadable, len(leases))
	}
	for _, c := range cases.Entries {
		e, ok := parseEntry(c.Entry)
		if u := e.user("alice", leases, cases.Now, grace); ok != (c.State != nil) || ok && u.State != State(*c.State) {
			t.Errorf("entry %q: %v, %v", c.Entry, u.State, ok)
		}
	}
	if len(cases.Leases) == 0 || len(cases.Entries) == 0 {
		t.Error("no cases")
	}
}
