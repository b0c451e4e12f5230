package lua

import (
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestAnnounce_RefusesAnotherNumberOfShardsAndForgetsInstancesWithoutALease(t *testing.T) {
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
