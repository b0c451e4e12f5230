package lua

import (
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestMirror_StatesCountsAndLogsOnlyComingAndGoing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		s.write("a.1", "0", "alice", "2", "bob", "1")
		s.write("b.1", "0", "alice", "1")
		s.wantOwners("alice", "a.1:2", "b.1:1")
		s.write("a.1", "1", "alice", "grace") // dropped there, still on b
		s.write("b.1", "1", "alice", "grace") // in her grace
		s.write("b.1", "2", "alice", "1")     // back
		s.write("a.1", "2", "alice", "gone")  // the grace on a is over
		s.write("b.1", "3", "alice", "gone")  // left on purpose
		s.write("b.1", "4", "cathy", "gone")  // never was here
		s.wantOwners("alice")
		s.wantOwners("bob", "a.1:1")
		s.wantOwners("cathy")
		s.wantLog("alice online", "bob online", "alice offline")
		if score, err := s.do("ZSCORE", "seen", "alice").AsFloat64(); err != nil || score == 0 {
			t.Errorf("alice was not recorded as seen: %v %v", score, err)
		}
	})
}

func TestMirror_EndsGracesElsewhereButNoSocketsWhenAUserLeaves(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		s.write("a.1", "0", "alice", "1", "bob", "1")
		s.write("b.1", "0", "alice", "1", "bob", "1")
		s.write("a.1", "1", "alice", "grace")
		s.write("b.1", "1", "alice", "left", "bob", "left")
		s.wantOwners("alice")
		s.wantOwners("bob", "a.1:1")
		s.wantLog("alice online", "bob online", "alice offline")
	})
}

func TestMirror_KeepsAUserWhoLeavesEarlyInAGraceHereAndNowhereElse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1", "b.1")
		s.write("a.1", "0", "alice", "1", "bob", "1")
		s.write("b.1", "0", "alice", "1")
		s.write("a.1", "1", "alice", "grace")
		s.write("b.1", "1", "alice", "left-early", "bob", "left-early", "cathy", "left-early")
		s.wantOwners("alice", "b.1:0")
		s.wantOwners("bob", "a.1:1", "b.1:0")
		s.wantOwners("cathy") // she was offline
		s.write("b.1", "2", "alice", "gone", "bob", "gone")
		s.wantOwners("bob", "a.1:1")
		s.wantLog("alice online", "bob online", "alice offline")
	})
}

func TestMirror_RefusesAnyoneWithoutTheLeaseAndItsVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("live.1")                                       // somebody can renew
		s.want(s.mirror("a.1", "0", "alice", "1"), StaleLease) // no lease
		s.open("a.1")
		s.want(s.mirror("a.1", "1", "alice", "1"), StaleLease) // Redis was rolled back
		s.write("a.1", "0", "alice", "1")
		s.want(s.mirror("a.1", "0", "alice", "5"), StaleLease) // a delayed duplicate
		s.age("a.1", 20000)
		s.write("a.1", "1", "alice", "2") // expired, within the grace: live again
		s.age("a.1", 30000)
		s.want(s.mirror("a.1", "2", "alice", "3"), StaleLease) // dead
		s.wantOwners("alice", "a.1:2")
		s.wantLog("alice online")
	})
}

func TestMirror_LogsNothingForUsersWhomItMirroredBeforeRedisLostThem(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.2") // a.1 went with all the rest
		s.writeAgain(4, "a.2", "0", "alice", "1", "bob", "grace", "cathy", "left", "dave", "1", "eve", "1")
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob", "a.2:0")
		s.wantLog("cathy offline", "eve online")
		// dave is still online on b, whose instance has not noticed the loss yet, when a sees him leave
		s.writeAgain(1, "a.2", "1", "dave", "left")
		s.open("b.2")
		s.writeAgain(1, "b.2", "0", "dave", "1")
		s.wantLog("cathy offline", "eve online", "dave offline", "dave online")
		// only a user who was not offline is in a grace
		const inGrace = "grace-if-present"
		s.writeAgain(2, "a.2", "2", "cathy", inGrace, "frank", inGrace, "gail", inGrace)
		s.wantOwners("cathy")
		s.wantOwners("frank", "a.2:0")
		s.wantOwners("gail")
		s.wantLog("cathy offline", "eve online", "dave offline", "dave online")
	})
}

func TestMirror_LogsThatAUserIsBackHoweverLongAgoTheGoingWasLogged(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.seenFor = "3600000"
		mirror := func(incarnation, version, what, ago string) {
			t.Helper()
			s.want(s.mirrorAgo(1, incarnation, version, "alice", what, ago), OK)
		}
		// alice dropped from b and came back on a, which hung. Then Redis lost everything, and b alone
		// mirrored again.
		s.open("b.2")
		mirror("b.2", "0", "grace", "60000")
		s.wantLog()
		mirror("b.2", "1", "gone", "60000")
		s.wantLog("alice offline")
		s.open("a.2")
		mirror("a.2", "0", "1", "50000")
		s.wantLog("alice offline", "alice online")
		// that she was seen before does not count when Redis loses her once more
		s.do("HDEL", "owners", "alice")
		mirror("a.2", "1", "1", "50000")
		s.wantLog("alice offline", "alice online")
	})
}

func TestMirror_RecordsWhenTheUserCameAndWhenTheLastSocketWent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1")
		s.seenFor = "3600000"
		mirror := func(version, what, ago string) {
			t.Helper()
			s.want(s.mirrorAgo(0, "a.1", version, "alice", what, ago), OK)
		}
		now, _ := server.Do(s.client, "TIME").AsIntSlice()
		near := func(what string, ms, ago int64) {
			t.Helper()
			if want := now[0]*1000 - ago; ms < want-2000 || ms > want+60000 {
				t.Errorf("%s %d, want about %d", what, ms, want)
			}
		}
		mirror("0", "1", "400000") // Redis was away when she came
		entry, _ := s.do("HGET", "owners", "alice").ToString()
		since, _ := strconv.ParseInt(strings.Fields(entry)[0], 10, 64)
		near("since", since, 400000)
		mirror("1", "grace", "200000")
		score, _ := s.do("ZSCORE", "seen", "alice").AsFloat64()
		near("seen", int64(score), 200000)
	})
}
