package lua

import (
	"maps"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// keyspace is all that Redis holds of a shard, by key and, in a hash, by field.
func (s *shard) keyspace() map[string]string {
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

func TestScripts_ThatRefuseWriteNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		nothing := func(*shard) {}
		dead := func(s *shard) { s.age("a.1", 60000) }
		outage := func(s *shard) { // nobody could renew: all leases would be extended
			s.age("a.1", 60000)
			s.age("b.1", 60000)
		}
		stepBack := func(s *shard) { s.stepBack(3_600_000, "a.1", "b.1") }
		forgotten := func(s *shard) { s.do("DEL", "once") }

		renew := func(incarnation, version string) func(*shard) Status {
			return func(s *shard) Status { return s.lease(incarnation, version, 10000) }
		}
		write := func(incarnation, version string) func(*shard) Status {
			return func(s *shard) Status { return s.mirror(incarnation, version, "alice", "1") }
		}
		store := func(claim, result string) func(*shard) Status {
			return func(s *shard) Status { return s.storeResult(claim, result) }
		}
		announce := func(s *shard) Status { return s.announce("b", "2") }
		claim := func(s *shard) Status { return s.claim("p other") }

		for name, refused := range map[string]struct {
			after func(*shard)
			call  func(*shard) Status
			want  Status
		}{
			"a renewal of a version that Redis does not have": {nothing, renew("a.1", "7"), StaleLease},
			"a second opening":                      {nothing, renew("a.1", ""), StaleLease},
			"a renewal without a lease":             {nothing, renew("x.1", "0"), StaleLease},
			"such a renewal after an outage":        {outage, renew("x.1", "0"), StaleLease},
			"such a renewal after a step back":      {stepBack, renew("x.1", "0"), StaleLease},
			"a renewal of a dead lease":             {dead, renew("a.1", "0"), StaleLease},
			"a write without a lease":               {nothing, write("x.1", "0"), StaleLease},
			"a write of another version":            {nothing, write("a.1", "7"), StaleLease},
			"such a write after an outage":          {outage, write("a.1", "7"), StaleLease},
			"such a write after a step back":        {stepBack, write("a.1", "7"), StaleLease},
			"another number of shards":              {nothing, announce, OtherShards},
			"a claim of a claimed key":              {nothing, claim, Taken},
			"the result of another's claim":         {nothing, store("p other", "x"), NotYours},
			"giving up another's claim":             {nothing, store("p other", ""), NotYours},
			"the result of a claim that is no more": {forgotten, store("p mine", "x"), NotYours},
		} {
			t.Run(name, func(t *testing.T) {
				s := newShard(t, server)
				s.open("a.1", "b.1")
				s.want(s.announce("a", "1"), OK)
				s.want(s.claim("p mine"), OK)
				refused.after(s)
				before := s.keyspace()
				s.want(refused.call(s), refused.want)
				if after := s.keyspace(); !maps.Equal(before, after) {
					t.Errorf("before: %v\nafter: %v", before, after)
				}
			})
		}
	})
}

func TestStatuses_AreTheSameInLuaAndInGo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		const statuses = "return {OK, STALE_LEASE, OTHER_SHARDS, TAKEN, NOT_YOURS}"
		script := rueidis.NewLuaScript(read("common") + statuses)
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
