package lua

import (
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

// stepBack moves what was written by Redis' clock ahead, as if the clock had stepped back.
func (s *shard) stepBack(ms int64, incarnations ...string) {
	s.t.Helper()
	last, err := s.do("GET", "clock").AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	s.do("SET", "clock", strconv.FormatInt(last+ms, 10))
	for _, incarnation := range incarnations {
		s.age(incarnation, -ms)
	}
}

func TestLeases_ThatAreDeadStayDeadWhenTheClockStepsBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		const hour = 3_600_000
		for name, notice := range map[string]func(s *shard){
			"a renewal notices":       func(s *shard) { s.renew("b.1", "1") },
			"a write notices":         func(s *shard) { s.write("b.1", "1", "bob", "2") },
			"a new instance notices":  func(s *shard) { s.open("c.1") },
			"a renewal notices again": func(s *shard) { s.renew("b.1", "1"); s.renew("b.1", "1") },
		} {
			t.Run(name, func(t *testing.T) {
				s := newShard(t, server)
				s.open("a.1", "b.1")
				s.write("a.1", "0", "alice", "1")
				s.write("b.1", "0", "bob", "1")
				s.age("a.1", 20000) // a died, and its lease has expired
				s.stepBack(hour, "a.1", "b.1")
				notice(s)
				s.renew("b.1", versionOf(s, "b.1")) // b lives, and goes on
				s.age("a.1", 10000)                 // the grace passes
				s.sweep()
				s.wantOwners("alice")
				s.wantLog("alice online", "bob online", "alice offline")
				if t.Failed() {
					t.Logf("the lease of a: %q", s.leaseOf("a.1"))
				}
			})
		}
	})
}

// versionOf is the version of an incarnation's lease.
func versionOf(s *shard, incarnation string) string { return strings.Fields(s.leaseOf(incarnation))[1] }

func TestLeases_ThatAreExtendedMoveWithTheClock(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		s.write("a.1", "0", "alice", "1")
		s.age("a.1", 60000)
		s.age("b.1", 60000)
		s.renew("b.1", "0") // the lease of a is extended
		const hour = 3_600_000
		s.ageExtension("a.1", -hour)
		s.stepBack(hour, "b.1")
		s.renew("b.1", "0")
		s.ageExtension("a.1", 15000)
		s.sweep()
		s.wantOwners("alice")
	})
}

func TestLeases_StayAsTheyAreWhenTheClockIsALittleBehind(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		before := s.leaseOf("a.1")
		now, _ := server.Do(s.client, "TIME").AsIntSlice()
		s.do("SET", "clock", strconv.FormatInt(now[0]*1000+900, 10))
		s.renew("b.1", "0")
		if after := s.leaseOf("a.1"); after != before {
			t.Errorf("the lease of a was %q and is %q", before, after)
		}
	})
}
