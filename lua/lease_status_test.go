package lua

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// The cases are those of a test in presence: Lua and Go must decide alike.
func TestLua_DecidesTheStatusOfEveryLeaseAndTheStateOfEveryUser(t *testing.T) {
	cases := redistest.ReadLeaseCases(t)
	now, grace := strconv.FormatInt(cases.Now, 10), strconv.FormatInt(cases.Grace, 10)
	prelude := read("leases") + read("entry")
	status := rueidis.NewLuaScript(prelude + `
		return lease_status(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])) or false`)
	state := rueidis.NewLuaScript(prelude + `
		local status_of = lease_statuses(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
		return readable(ARGV[1]) and entry_state(ARGV[1], status_of) or false`)
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		for incarnation, lease := range cases.Of {
			s.do("HSET", "leases", incarnation, lease)
		}
		decide := func(script *rueidis.Lua, text string, want *int64) {
			t.Helper()
			reply := script.Exec(context.Background(), s.client, s.keys("leases"), []string{text, now, grace})
			got, err := reply.AsInt64()
			switch {
			case want == nil && !rueidis.IsRedisNil(err):
				t.Errorf("%q is read as %d, %v; it is not readable", text, got, err)
			case want != nil && (err != nil || got != *want):
				t.Errorf("%q is read as %d, %v, want %d", text, got, err, *want)
			}
		}
		for _, c := range cases.Leases {
			decide(status, c.Lease, c.Status)
		}
		for _, c := range cases.Entries {
			decide(state, c.Entry, c.State)
		}
	})
}
