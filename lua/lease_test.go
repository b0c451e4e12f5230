package lua

import (
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestLease_OfANewEpochTakesTheEntriesOverAndNobodyFlickers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1")
		s.write("a.1", "0", "alice", "1", "bob", "1")
		s.open("a.2")
		s.write("a.2", "0", "alice", "1") // bob left meanwhile
		s.wantOwners("alice", "a.2:1")
		s.renew("a.2", "1", "a.1") // fences a.1
		s.want(s.lease("a.1", "1", 10000), StaleLease)
		s.want(s.mirror("a.1", "1", "bob", "1"), StaleLease)
		s.sweep()
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob")
		s.wantLog("alice online", "bob online", "bob offline")
	})
}

func TestLease_OpensOnceAndEndsIntoTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("live.1")                               // somebody can renew
		s.want(s.lease("a.1", "0", 10000), StaleLease) // nothing to renew
		s.open("a.1")
		s.want(s.lease("a.1", "", 10000), StaleLease) // is open already
		s.renew("a.1", "0")
		s.write("a.1", "0", "alice", "1")
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

func TestMirror_LogsThatAUserWithADeadOwnerWasOfflineBeforeComingBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1")
		s.write("a.1", "0", "alice", "1")
		s.open("b.1")
		s.age("a.1", 30000)
		s.write("b.1", "0", "alice", "1") // before any sweep
		s.sweep()
		s.wantOwners("alice", "b.1:1")
		s.wantLog("alice online", "alice offline", "alice online")
		// b says that bob went. But a, which only seemed dead, may say that he is there
		s.open("a.2")
		s.write("a.2", "0", "bob", "1")
		s.age("a.2", 30000)
		s.write("b.1", "1", "bob", "gone")
		s.open("a.3")
		s.writeAgain(1, "a.3", "0", "bob", "1")
		s.wantLog("alice online", "alice offline", "alice online", "bob online", "bob offline", "bob online")
	})
}

func TestLease_ExtendsAllLeasesWhenNobodyCouldRenew(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, back := range map[string]func(s *shard){
			"with a renewal":  func(s *shard) { s.renew("a.1", "1") },
			"with a write":    func(s *shard) { s.write("a.1", "1", "alice", "1") },
			"as another":      func(s *shard) { s.open("c.1") },
			"after the sweep": func(s *shard) { s.sweep(); s.renew("a.1", "1") },
		} {
			s := newShard(t, server)
			s.open("a.1", "b.1", "gone.1")
			s.write("a.1", "0", "alice", "1")
			s.write("b.1", "0", "bob", "1")
			s.write("gone.1", "0", "cathy", "1")
			for _, incarnation := range []string{"a.1", "b.1", "gone.1"} {
				s.age(incarnation, 60000)
			}
			back(s)
			s.sweep()
			s.renew("b.1", "1")
			s.wantOwners("bob", "b.1:1")
			s.wantLog("alice online", "bob online", "cathy online")
			if t.Failed() {
				t.Fatal(name)
			}
			s.ageExtension("gone.1", 15000)
			s.sweep()
			s.wantOwners("cathy")
			s.want(s.lease("gone.1", "1", 10000), StaleLease)
		}
	})
}

func TestSeen_IsTheDeadlineOfADeadOwnerEvenIfAGraceRunsElsewhere(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, drop := range map[string]func(s *shard){
			"by the sweep": func(s *shard) { s.sweep() },
			"by a write":   func(s *shard) { s.write("b.1", "2", "alice", "grace") },
		} {
			s := newShard(t, server)
			s.open("a.1", "b.1")
			s.write("b.1", "0", "alice", "1")
			s.write("b.1", "1", "alice", "grace") // dropped there, and came to a, which died
			s.write("a.1", "0", "alice", "1")
			s.age("a.1", 30000)
			deadline, _, _ := strings.Cut(s.leaseOf("a.1"), " ")
			s.do("ZREM", "seen", "alice")
			drop(s)
			if score, _ := s.do("ZSCORE", "seen", "alice").ToString(); score != deadline {
				t.Errorf("%s: last seen at %s, want %s", name, score, deadline)
			}
		}
	})
}
