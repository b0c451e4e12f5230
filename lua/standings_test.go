package lua

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// TestLuaDecidesTheStandingOfEveryLeaseAndTheStateOfEveryUserAsGoDoes runs the cases that presence runs too.
func TestLuaDecidesTheStandingOfEveryLeaseAndTheStateOfEveryUserAsGoDoes(t *testing.T) {
	text, err := os.ReadFile("testdata/standings.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Now, Grace int64
		Leases     []struct {
			Lease    string
			Standing *int64
		}
		Of      map[string]string
		Entries []struct {
			Entry string
			State *int64
		}
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	now, grace := strconv.FormatInt(cases.Now, 10), strconv.FormatInt(cases.Grace, 10)
	prelude := read("standing") + read("renewal") + read("entry")
	standing := rueidis.NewLuaScript(prelude + "return lease_standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])) or false")
	state := rueidis.NewLuaScript(prelude + `
		local standing = standings(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
		return readable(ARGV[1]) and entry_state(ARGV[1], standing) or false`)
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		for token, lease := range cases.Of {
			server.Do(s.client, "HSET", s.key("leases"), token, lease)
		}
		decide := func(script *rueidis.Lua, text string, want *int64) {
			t.Helper()
			reply := script.Exec(context.Background(), s.client, []string{s.key("leases")}, []string{text, now, grace})
			got, err := reply.AsInt64()
			if unreadable := rueidis.IsRedisNil(reply.Error()); unreadable != (want == nil) || want != nil && (err != nil || got != *want) {
				t.Errorf("%q: %v, %v, want %v", text, got, err, want)
			}
		}
		for _, c := range cases.Leases {
			decide(standing, c.Lease, c.Standing)
		}
		for _, c := range cases.Entries {
			decide(state, c.Entry, c.State)
		}
	})
	if len(cases.Leases) == 0 || len(cases.Entries) == 0 {
		t.Error("no cases")
	}
}
