package lua

import (
	"testing"

	"rollcall/lua/redistest"
)

func TestAnnounce_RefusesAnotherNumberOfShardsAndForgetsInstancesWithoutALease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1")
		s.want(s.announce("a", "1"), OK)
		s.want(s.announce("b", "2"), OtherShards)
		s.open("b.1")
		s.want(s.announce("b", "1"), OK)
		s.do("HDEL", "leases", "a.1")
		s.want(s.announce("b", "1"), OK)
		s.wantFields("instances", "b")
	})
}
