package lua

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"rollcall/lua/redistest"
)

func TestWhatCannotBeReadHoldsNothingUpAndASweepRemovesIt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		server.Do(s.client, "HSET", s.key("owners"), "bob", "garbage", "cathy", "", "dave", "12", "erin", "x 1:a a.1:1", "frank", "7 lost.1:1", "gail", "garbage")
		server.Do(s.client, "HSET", s.key("leases"), "b.1", "garbage", "c.1", "", "d.1", "12", "lost.1", "now 3")
		s.want(s.mirror("a.1", "1", "bob", "1", "cathy", "gone", "dave", "grace"), OK)
		s.want(s.lease("a.1", "2", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK) // whose lease was as good as lost
		server.Do(s.client, "HSET", s.key("leases"), "", "garbage", ".1", "garbage")
		s.want(s.status(s.run(Announce, []string{"instances", "leases", "shards"}, "a", "{}", "1")), OK)
		args := []string{"PUBLISH", s.key("to:"), "15000", "<0>", "3", "", "a.1", "gail", "bob", "nobody", "<1>", "<2>", "<3>"}
		if got, want := numbersIn(s.run(Push, []string{"owners", "leases"}, args...)), []int64{0, 2, 0}; !slices.Equal(got, want) {
			t.Errorf("pushes: %v, want %v", got, want)
		}
		s.sweep()
		s.wantOwners("alice", "a.1:1")
		s.wantOwners("bob", "a.1:1")
		s.wantOwners("dave", "a.1:0")
		s.wantOwners("frank", "lost.1:1") // it may still say that it is there
		if left, _ := server.Do(s.client, "HLEN", s.key("owners")).AsInt64(); left != 4 {
			t.Errorf("%d entries are left, want 4", left)
		}
		s.age("lost.1", 15000)
		s.sweep()
		s.wantOwners("frank")
		leases, _ := server.Do(s.client, "HKEYS", s.key("leases")).AsStrSlice()
		if slices.Sort(leases); !slices.Equal(leases, []string{"a.1", "b.1"}) {
			t.Errorf("leases %v, want those of a and b alone", leases)
		}
	})
}

func TestAnyNumberOfDeadTokensIsSwept(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		const dead = 8100 // more than one command of a script can take
		s := newState(t, server)
		s.want(s.lease("live.1", "", 3_600_000), OK)
		args := []string{"HSET", s.key("leases")}
		for n := range dead {
			args = append(args, fmt.Sprintf("dead%d.1", n), "1 0")
		}
		server.Do(s.client, args...)
		for n := range 200 { // a table that takes more than one step
			server.Do(s.client, "HSET", s.key("owners"), "user"+strconv.Itoa(n), fmt.Sprintf("1 dead%d.1:1", n))
		}
		if dropped := s.sweep(); dropped != 200 {
			t.Errorf("%d entries were dropped, want 200", dropped)
		}
		if leases, _ := server.Do(s.client, "HKEYS", s.key("leases")).AsStrSlice(); !slices.Equal(leases, []string{"live.1"}) {
			t.Errorf("%d leases are left, want that of live.1", len(leases))
		}
	})
}
