package lua

import (
	"fmt"
	"strconv"
	"testing"

	"rollcall/lua/redistest"
)

func TestSweep_DropsTheDeadKeepsTheRestAndForgetsTheirLeases(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		var all []string
		for n := range 700 { // enough to be a real hash table, which takes many steps
			all = append(all, "user"+strconv.Itoa(n), "1")
		}
		s.write("a.1", "0", all...) // a single call: Redis takes more than a mirror ever sends
		s.write("b.1", "0", "user7", "1")
		s.age("a.1", 30000)
		if dropped := s.sweep(); dropped < 700 {
			t.Errorf("swept %d entries, want 700", dropped)
		}
		s.wantOwners("user7", "b.1:1")
		s.wantFields("owners", "user7")
		s.wantFields("leases", "b.1")
		if changes, _ := s.do("XLEN", "log").AsInt64(); changes != 700+699 {
			t.Errorf("%d changes logged, want 700 online and 699 offline", changes)
		}
	})
}

func TestSweep_GivesAnIncarnationThatLostItsLeaseTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("live.1") // somebody can renew
		s.open("a.1")
		s.write("a.1", "0", "alice", "1")
		s.do("HDEL", "leases", "a.1")
		if dropped := s.sweep(); dropped != 0 {
			t.Error("swept at once")
		}
		s.age("a.1", 15000)
		s.sweep()
		s.wantOwners("alice")
	})
}

func TestSweep_TakesAnyNumberOfDeadIncarnations(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		const dead = 8100 // more than one command of a script can take
		s := newShard(t, server)
		s.want(s.lease("live.1", "", 3_600_000), OK)
		var leases []string
		for n := range dead {
			leases = append(leases, fmt.Sprintf("dead%d.1", n), "1 0")
		}
		s.do("HSET", "leases", leases...)
		for n := range 200 { // a table that takes more than one step
			s.do("HSET", "owners", "user"+strconv.Itoa(n), fmt.Sprintf("1 dead%d.1:1", n))
		}
		if dropped := s.sweep(); dropped != 200 {
			t.Errorf("%d entries were dropped, want 200", dropped)
		}
		s.wantFields("leases", "live.1")
	})
}
