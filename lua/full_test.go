package lua

import (
	"context"
	"errors"
	"testing"

	"rollcall/lua/redistest"
)

func TestAFullRedisTakesLeasesUsersAndSweepsAndNoClaims(t *testing.T) {
	server := redistest.Start(t, redistest.SmallRedis...)
	s := newState(t, server)
	full := func() bool {
		reply := s.run(Lease, []string{"leases", "clock"}, "probe.1", "", "10000", "15000", "PUBLISH", s.key("to:x"), "beat")
		server.Do(s.client, "HDEL", s.key("leases"), "probe.1")
		answer, err := reply[2].AsBool()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	s.want(s.lease("a.1", "", 10000), OK)
	s.want(s.lease("b.1", "", 10000), OK)
	s.want(s.lease("dead.1", "", 10000), OK)
	s.want(s.mirror("a.1", "0", "alice", "1"), OK)
	s.want(s.mirror("dead.1", "0", "bob", "1"), OK)
	s.age("dead.1", 30000)
	if full() {
		t.Error("it is said to be full before it is")
	}
	server.Fill()
	if !full() {
		t.Error("it is not said to be full")
	}
	s.want(s.lease("b.1", "0", 10000), OK)
	s.want(s.mirror("b.1", "0", "cathy", "1"), OK)    // who comes
	s.want(s.mirror("a.1", "1", "alice", "left"), OK) // who leaves
	s.sweep()
	s.want(s.lease("c.1", "", 10000), OK)
	s.want(s.status(s.run(Announce, []string{"instances", "leases", "shards"}, "c", "{}", "1")), OK)
	s.wantOwners("alice")
	s.wantOwners("bob")
	s.wantOwners("cathy", "b.1:1")
	s.wantLog("alice online", "bob online", "cathy online", "alice offline", "bob offline")
	claim := func() error {
		_, err := Check(Claim.Exec(context.Background(), s.client, []string{s.key("once")}, []string{"x y", "1000"}))
		return err
	}
	if err := claim(); !errors.Is(err, ErrFull) {
		t.Errorf("a claim: %v, want ErrFull", err)
	}
	server.MakeRoom()
	if full() {
		t.Error("it is still said to be full")
	}
	if err := claim(); err != nil {
		t.Errorf("a claim when there is room: %v", err)
	}
}
