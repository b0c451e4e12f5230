package lua

import (
	"maps"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// keyspace is all that Redis holds under the prefix of a state, by key and, in a hash, by field.
func (s *state) keyspace() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	keys, err := s.server.Do(s.client, "KEYS", s.prefix+"*").AsStrSlice()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range keys {
		switch kind, _ := s.server.Do(s.client, "TYPE", key).ToString(); kind {
		case "hash":
			fields, _ := s.server.Do(s.client, "HGETALL", key).AsStrMap()
			for field, value := range fields {
				all[key+" "+field] = value
			}
		case "string":
			all[key], _ = s.server.Do(s.client, "GET", key).ToString()
		default:
			s.t.Fatalf("a refusal that changes a %s would not be seen", kind)
		}
	}
	return all
}

func TestWhatIsRefusedWritesNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		lapsed := func(s *state) { // nobody is left who could renew, and all would be extended
			s.age("a.1", 60000)
			s.age("b.1", 60000)
		}
		steppedBack := func(s *state) { s.stepBack(3_600_000, "a.1", "b.1") }
		for name, refused := range map[string]struct {
			before func(*state)
			call   func(*state) Status
			want   Status
		}{
			"a renewal of a version that Redis does not have": {nil, func(s *state) Status { return s.lease("a.1", "7", 10000) }, StaleLease},
			"a second opening":                {nil, func(s *state) Status { return s.lease("a.1", "", 10000) }, StaleLease},
			"a renewal without a lease":       {nil, func(s *state) Status { return s.lease("x.1", "0", 10000) }, StaleLease},
			"such a renewal after an outage":  {lapsed, func(s *state) Status { return s.lease("x.1", "0", 10000) }, StaleLease},
			"such a renewal after a step":     {steppedBack, func(s *state) Status { return s.lease("x.1", "0", 10000) }, StaleLease},
			"a renewal by one who is dead":    {func(s *state) { s.age("a.1", 60000) }, func(s *state) Status { return s.lease("a.1", "0", 10000) }, StaleLease},
			"a write without a lease":         {nil, func(s *state) Status { return s.mirror("x.1", "0", "alice", "1") }, StaleLease},
			"a write of another version":      {nil, func(s *state) Status { return s.mirror("a.1", "7", "alice", "1") }, StaleLease},
			"such a write after an outage":    {lapsed, func(s *state) Status { return s.mirror("a.1", "7", "alice", "1") }, StaleLease},
			"such a write after a step":       {steppedBack, func(s *state) Status { return s.mirror("a.1", "7", "alice", "1") }, StaleLease},
			"another number of shards":        {nil, func(s *state) Status { return s.announce("b", "2") }, OtherShards},
			"a claim that was made":           {nil, func(s *state) Status { return s.status(s.run(Claim, []string{"once"}, "p other", "60000")) }, Taken},
			"an answer to another's claim":    {nil, func(s *state) Status { return s.storeResult("p other", "x") }, NotYours},
			"giving up another's claim":       {nil, func(s *state) Status { return s.storeResult("p other", "") }, NotYours},
			"an answer to what was forgotten": {func(s *state) { server.Do(s.client, "DEL", s.key("once")) }, func(s *state) Status { return s.storeResult("p mine", "x") }, NotYours},
		} {
			t.Run(name, func(t *testing.T) {
				s := newState(t, server)
				s.want(s.lease("a.1", "", 10000), OK)
				s.want(s.lease("b.1", "", 10000), OK)
				s.want(s.announce("a", "1"), OK)
				s.want(s.status(s.run(Claim, []string{"once"}, "p mine", "60000")), OK)
				if refused.before != nil {
					refused.before(s)
				}
				before := s.keyspace()
				s.want(refused.call(s), refused.want)
				if after := s.keyspace(); !maps.Equal(before, after) {
					t.Errorf("before: %v\nafter: %v", before, after)
				}
			})
		}
	})
}

func (s *state) announce(instance, shards string) Status {
	s.t.Helper()
	return s.status(s.run(Announce, []string{"instances", "leases", "shards"}, instance, "{}", shards))
}

func (s *state) storeResult(claim, answer string) Status {
	s.t.Helper()
	return s.status(s.run(StoreResult, []string{"once"}, claim, answer, "60000"))
}

func TestEveryStatusIsTheSameInLuaAndInGo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		script := rueidis.NewLuaScript(read("common") + "return {OK, STALE_LEASE, OTHER_SHARDS, TAKEN, NOT_YOURS}")
		got := numbersIn(s.run(script, nil))
		for i, want := range []Status{OK, StaleLease, OtherShards, Taken, NotYours} {
			if Status(got[i]) != want {
				t.Errorf("status %d is %d in Lua, and %d in Go", i, got[i], want)
			}
		}
		if len(errorOf) != len(got) {
			t.Errorf("%d statuses have an error, want %d", len(errorOf), len(got))
		}
	})
}
