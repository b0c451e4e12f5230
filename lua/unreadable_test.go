package lua

import (
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestScripts_IgnoreWhatTheyCannotReadAndASweepRemovesIt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		s.open("a.1")
		s.write("a.1", "0", "alice", "1")
		s.do("HSET", "owners", "bob", "garbage", "cathy", "", "dave", "12", "erin", "x 1:a a.1:1",
			"frank", "7 lost.1:1", "gail", "garbage")
		s.do("HSET", "leases", "b.1", "garbage", "c.1", "", "d.1", "12", "lost.1", "now 3")
		s.write("a.1", "1", "bob", "1", "cathy", "gone", "dave", "grace")
		s.renew("a.1", "2")
		s.open("b.1") // its lease was as good as lost
		s.do("HSET", "leases", "", "garbage", ".1", "garbage")
		s.want(s.announce("a", "1"), OK)
		got := s.push("a.1", "", 3, "gail", "bob", "nobody", "<1>", "<2>", "<3>")
		if want := []int64{0, 2, 0}; !slices.Equal(got, want) {
			t.Errorf("pushes: %v, want %v", got, want)
		}
		s.sweep()
		s.wantOwners("alice", "a.1:1")
		s.wantOwners("bob", "a.1:1")
		s.wantOwners("dave", "a.1:0")
		s.wantOwners("frank", "lost.1:1") // it may still say that it is there
		s.wantFields("owners", "alice", "bob", "dave", "frank")
		s.age("lost.1", 15000)
		s.sweep()
		s.wantOwners("frank")
		s.wantFields("leases", "a.1", "b.1")
	})
}
