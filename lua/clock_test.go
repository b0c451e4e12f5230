package lua

import (
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

// stepBack leaves what is left when Redis' clock steps back: what was written by it is that far ahead.
func (s *state) stepBack(ms int64, tokens ...string) {
	s.t.Helper()
	last, err := s.server.Do(s.client, "GET", s.key("clock")).AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	s.server.Do(s.client, "SET", s.key("clock"), strconv.FormatInt(last+ms, 10))
	for _, token := range tokens {
		s.age(token, -ms)
	}
}

func TestTheDeadStayDeadWhenTheClockStepsBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		const hour = 3_600_000
		for name, notice := range map[string]func(s *state){
			"a renewal notices":        func(s *state) { s.want(s.lease("b.1", "1", 10000), OK) },
			"a write notices":          func(s *state) { s.want(s.mirror("b.1", "1", "bob", "2"), OK) },
			"one who is new notices":   func(s *state) { s.want(s.lease("c.1", "", 10000), OK) },
			"a renewal notices it now": func(s *state) { s.want(s.lease("b.1", "1", 10000), OK); s.want(s.lease("b.1", "1", 10000), OK) },
		} {
			t.Run(name, func(t *testing.T) {
				s := newState(t, server)
				for _, token := range []string{"a.1", "b.1"} {
					s.want(s.lease(token, "", 10000), OK)
				}
				s.want(s.mirror("a.1", "0", "alice", "1"), OK)
				s.want(s.mirror("b.1", "0", "bob", "1"), OK)
				s.age("a.1", 20000) // a died, and its lease lapsed
				s.stepBack(hour, "a.1", "b.1")
				notice(s)
				s.want(s.lease("b.1", versionOf(s, "b.1"), 10000), OK) // who lives goes on
				s.age("a.1", 10000)                                    // the grace passes
				s.sweep()
				s.wantOwners("alice")
				s.wantLog("alice online", "bob online", "alice offline")
				if t.Failed() {
					t.Logf("the lease of a: %q", leaseOf(s, "a.1"))
				}
			})
		}
	})
}

// versionOf is the version of a token's lease.
func versionOf(s *state, token string) string { return strings.Fields(leaseOf(s, token))[1] }

func TestAPardonMovesWithTheClockToo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.age("a.1", 60000)
		s.age("b.1", 60000)
		s.want(s.lease("b.1", "0", 10000), OK) // a is pardoned
		const hour = 3_600_000
		s.pass("a.1", -hour)
		s.stepBack(hour, "b.1")
		s.want(s.lease("b.1", "0", 10000), OK)
		s.pass("a.1", 15000)
		s.sweep()
		s.wantOwners("alice")
	})
}

func TestAClockThatIsALittleBehindChangesNoLease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		before := leaseOf(s, "a.1")
		now, _ := server.Do(s.client, "TIME").AsIntSlice()
		server.Do(s.client, "SET", s.key("clock"), strconv.FormatInt(now[0]*1000+900, 10))
		s.want(s.lease("b.1", "0", 10000), OK)
		if after := leaseOf(s, "a.1"); after != before {
			t.Errorf("the lease of a was %q and is %q", before, after)
		}
	})
}
