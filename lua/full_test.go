package lua

import (
	"context"
	"errors"
	"testing"

	"rollcall/lua/redistest"
)

func TestFullRedis_TakesLeasesUsersAndSweepsAndNoClaims(t *testing.T) {
	server := redistest.Start(t, redistest.SmallRedis...)
	s := newShard(t, server)
	full := func() bool {
		args := []string{"probe.1", "", "10000", "15000", "PUBLISH", s.key("to:x"), "beat"}
		reply := s.run(Lease, []string{"leases", "clock"}, args...)
		s.do("HDEL", "leases", "probe.1")
		answer, err := reply[2].AsBool()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	s.open("a.1", "b.1", "dead.1")
	s.write("a.1", "0", "alice", "1")
	s.write("dead.1", "0", "bob", "1")
	s.age("dead.1", 30000)
	if full() {
		t.Error("it is said to be full before it is")
	}
	server.Fill()
	if !full() {
		t.Error("it is not said to be full")
	}
	s.renew("b.1", "0")
	s.write("b.1", "0", "cathy", "1")    // comes
	s.write("a.1", "1", "alice", "left") // leaves
	s.sweep()
	s.open("c.1")
	s.want(s.announce("c", "1"), OK)
	s.wantOwners("alice")
	s.wantOwners("bob")
	s.wantOwners("cathy", "b.1:1")
	s.wantLog("alice online", "bob online", "cathy online", "alice offline", "bob offline")
	claim := func() error {
		_, err := Check(Claim.Exec(context.Background(), s.client, s.keys("once"), []string{"x y", "1000"}))
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
