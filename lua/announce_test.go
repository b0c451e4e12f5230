package lua

import (
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestInstancesFindTheLowestProtocol(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		wantLowest := func(instance, record string, want int64) {
			t.Helper()
			reply := s.run(Announce, []string{"instances", "leases", "shards"}, instance, record, "1")
			if got, err := reply[2].AsInt64(); err != nil || got != want {
				t.Errorf("%s finds the protocol %d, %v, want %d", instance, got, err, want)
			}
		}
		for _, instance := range []string{"a", "b", "old"} {
			s.want(s.lease(instance+".1", "", 10000), OK)
		}
		wantLowest("a", `{"id":"a","protocol":3}`, 3)
		wantLowest("b", `{"id":"b","protocol":2}`, 2)
		wantLowest("old", `{"id":"old"}`, 1)
		wantLowest("a", `{"id":"a","protocol":3}`, 1)
		server.Do(s.client, "HDEL", s.key("leases"), "old.1")
		wantLowest("a", `{"id":"a","protocol":3}`, 2)
	})
}

func TestInstancesMustAgreeOnTheNumberOfShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		announce := func(instance, shards string) Status {
			return s.status(s.run(Announce, []string{"instances", "leases", "shards"}, instance, "{}", shards))
		}
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(announce("a", "1"), OK)
		s.want(announce("b", "2"), OtherShards)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(announce("b", "1"), OK)
		server.Do(s.client, "HDEL", s.key("leases"), "a.1")
		s.want(announce("b", "1"), OK)
		if instances, _ := server.Do(s.client, "HKEYS", s.key("instances")).AsStrSlice(); !slices.Equal(instances, []string{"b"}) {
			t.Errorf("instances %v, want b alone: a has no lease", instances)
		}
	})
}
