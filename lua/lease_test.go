package lua

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestANewEpochTakesTheEntriesOverAndNobodyFlickers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1", "bob", "1"), OK)
		s.want(s.lease("a.2", "", 10000), OK)
		s.want(s.mirror("a.2", "0", "alice", "1"), OK) // bob left meanwhile
		s.wantOwners("alice", "a.2:1")
		s.want(s.lease("a.2", "1", 10000, "a.1"), OK) // condemns a.1
		s.want(s.lease("a.1", "1", 10000), StaleLease)
		s.want(s.mirror("a.1", "1", "bob", "1"), StaleLease)
		s.sweep()
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob")
		s.wantLog("alice online", "bob online", "bob offline")
	})
}

func TestLeaseOpensOnceAndEndsIntoTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK)       // somebody can renew
		s.want(s.lease("a.1", "0", 10000), StaleLease) // nothing to renew
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("a.1", "", 10000), StaleLease) // is open already
		s.want(s.lease("a.1", "0", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.lease("a.1", "1", 0), OK) // ends
		if dropped := s.sweep(); dropped != 0 {
			t.Errorf("the sweep dropped %d entries within the grace", dropped)
		}
		s.age("a.1", 15000)
		s.want(s.lease("a.1", "1", 10000), StaleLease) // dead
		s.sweep()
		s.wantOwners("alice")
		s.wantLog("alice online", "alice offline")
	})
}

func TestSweepDropsTheDeadKeepsTheRestAndForgetsTheirLeases(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		var all []string
		for n := range 700 { // enough to be a real hash table, which takes many steps
			all = append(all, "user"+strconv.Itoa(n), "1")
		}
		s.want(s.mirror("a.1", "0", all...), OK) // a single call: Redis takes more than a mirror ever sends
		s.want(s.mirror("b.1", "0", "user7", "1"), OK)
		s.age("a.1", 30000)
		if dropped := s.sweep(); dropped < 700 {
			t.Errorf("swept %d entries, want 700", dropped)
		}
		s.wantOwners("user7", "b.1:1")
		if left, _ := server.Do(s.client, "HLEN", s.key("owners")).AsInt64(); left != 1 {
			t.Errorf("%d entries left, want 1", left)
		}
		if leases, _ := server.Do(s.client, "HKEYS", s.key("leases")).AsStrSlice(); !slices.Equal(leases, []string{"b.1"}) {
			t.Errorf("leases %v, want b.1 alone", leases)
		}
		if changes, _ := server.Do(s.client, "XLEN", s.key("log")).AsInt64(); changes != 700+699 {
			t.Errorf("%d changes logged, want 700 online and 699 offline", changes)
		}
	})
}

func TestSweepGivesATokenThatLostItsLeaseTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK) // somebody can renew
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		server.Do(s.client, "HDEL", s.key("leases"), "a.1")
		if dropped := s.sweep(); dropped != 0 {
			t.Error("swept at once")
		}
		s.age("a.1", 15000)
		s.sweep()
		s.wantOwners("alice")
	})
}

func TestAUserWhoComesBackUnderADeadEntryWasOfflineBetween(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.age("a.1", 30000)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK) // before any sweep
		s.sweep()
		s.wantOwners("alice", "b.1:1")
		s.wantLog("alice online", "alice offline", "alice online")
		// of bob, b says that he went; but a, whom nobody could tell from dead, may say that he is there
		s.want(s.lease("a.2", "", 10000), OK)
		s.want(s.mirror("a.2", "0", "bob", "1"), OK)
		s.age("a.2", 30000)
		s.want(s.mirror("b.1", "1", "bob", "gone"), OK)
		s.want(s.lease("a.3", "", 10000), OK)
		s.want(s.mirrorKnown(1, "a.3", "0", "bob", "1"), OK)
		s.wantLog("alice online", "alice offline", "alice online", "bob online", "bob offline", "bob online")
	})
}

func TestWhenNobodyCouldRenewEverybodyHasTheGraceToComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, back := range map[string]func(s *state){
			"with a renewal":  func(s *state) { s.want(s.lease("a.1", "1", 10000), OK) },
			"with a write":    func(s *state) { s.want(s.mirror("a.1", "1", "alice", "1"), OK) },
			"as another":      func(s *state) { s.want(s.lease("c.1", "", 10000), OK) },
			"after the sweep": func(s *state) { s.sweep(); s.want(s.lease("a.1", "1", 10000), OK) },
		} {
			s := newState(t, server)
			for _, token := range []string{"a.1", "b.1", "gone.1"} {
				s.want(s.lease(token, "", 10000), OK)
			}
			s.want(s.mirror("a.1", "0", "alice", "1"), OK)
			s.want(s.mirror("b.1", "0", "bob", "1"), OK)
			s.want(s.mirror("gone.1", "0", "cathy", "1"), OK)
			for _, token := range []string{"a.1", "b.1", "gone.1"} {
				s.age(token, 60000)
			}
			back(s)
			s.sweep()
			s.want(s.lease("b.1", "1", 10000), OK)
			s.wantOwners("bob", "b.1:1")
			s.wantLog("alice online", "bob online", "cathy online")
			if t.Failed() {
				t.Fatal(name)
			}
			s.pass("gone.1", 15000)
			s.sweep()
			s.wantOwners("cathy")
			s.want(s.lease("gone.1", "1", 10000), StaleLease)
		}
	})
}

func TestADeadTokenIsRememberedAsTheLastThatSawTheUserEvenIfAGraceRunsElsewhere(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, drop := range map[string]func(s *state){
			"by the sweep": func(s *state) { s.sweep() },
			"by a write":   func(s *state) { s.want(s.mirror("b.1", "2", "alice", "grace"), OK) },
		} {
			s := newState(t, server)
			s.want(s.lease("a.1", "", 10000), OK)
			s.want(s.lease("b.1", "", 10000), OK)
			s.want(s.mirror("b.1", "0", "alice", "1"), OK)
			s.want(s.mirror("b.1", "1", "alice", "grace"), OK) // dropped there, and came to a, which died
			s.want(s.mirror("a.1", "0", "alice", "1"), OK)
			s.age("a.1", 30000)
			deadline, _, _ := strings.Cut(leaseOf(s, "a.1"), " ")
			server.Do(s.client, "ZREM", s.key("seen"), "alice")
			drop(s)
			if score, _ := server.Do(s.client, "ZSCORE", s.key("seen"), "alice").ToString(); score != deadline {
				t.Errorf("%s: last seen at %s, want %s", name, score, deadline)
			}
		}
	})
}

// leaseOf is the lease of a token, which begins with its deadline.
func leaseOf(s *state, token string) string {
	lease, _ := s.server.Do(s.client, "HGET", s.key("leases"), token).ToString()
	return lease
}
