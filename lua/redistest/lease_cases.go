package redistest

import (
	_ "embed"
	"encoding/json"
	"testing"
)

//go:embed lease_cases.json
var leaseCases []byte

// LeaseCases are leases and entries as Redis holds them, and what they mean. Lua and Go must decide alike, so
// a test of each runs through them.
type LeaseCases struct {
	Now, Grace int64 // ms
	Leases     []struct {
		Lease  string
		Status *int64 // nil: the lease is not readable
	}
	Of      map[string]string // the leases of the incarnations in Entries
	Entries []struct {
		Entry string
		State *int64 // nil: the entry is not readable
	}
}

// ReadLeaseCases returns the cases. There are some of both.
func ReadLeaseCases(t *testing.T) (cases LeaseCases) {
	t.Helper()
	if err := json.Unmarshal(leaseCases, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases.Leases) == 0 || len(cases.Entries) == 0 {
		t.Fatal("no cases")
	}
	return cases
}
