package presence

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rollcall/lua"
	"rollcall/lua/redistest"
)

func TestMirror_ShowsAUserToEveryInstance(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a, b := c.startInstance("a"), c.startInstance("b")
		first, second := a.join("alice"), b.join("alice")
		u := a.wantUser("alice", Online, 2, "a", "b")
		if u.Since == Never || u.LastSeen < u.Since {
			t.Errorf("since %d, last seen %d", u.Since, u.LastSeen)
		}
		a.Leave(first, false)
		a.waitMirrored()
		b.wantUser("alice", Online, 1, "b")
		b.Leave(second, false)
		b.waitMirrored()
		dropped := b.wantUser("alice", Reconnecting, 0)
		if dropped.Since != u.Since || dropped.LastSeen < u.LastSeen {
			t.Errorf("reconnecting: %+v", dropped)
		}
		third := b.join("alice")
		if back := b.wantUser("alice", Online, 1, "b"); back.Since != u.Since {
			t.Error("a flicker has reset since")
		}
		b.Leave(third, true)
		b.waitMirrored()
		if left := a.wantUser("alice", Offline, 0); left.Since != Never || left.LastSeen < dropped.LastSeen {
			t.Errorf("offline: %+v", left)
		}
		c.wantLog("alice online", "alice offline")
	})
}

func TestMirror_BeginsNoGraceAnewForAUserWhoIsMarkedByMistake(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Grace = time.Hour
		a, b := c.startInstance("a"), c.startInstance("b")
		onA, onB := a.join("alice"), b.join("alice")
		a.Leave(onA, false)
		a.waitMirrored()
		b.Leave(onB, true) // which ends the grace on a
		b.waitMirrored()
		a.MarkDirty("alice") // a push came too late
		a.waitMirrored()
		a.wantUser("alice", Offline, 0)
		c.wantLog("alice online", "alice offline")
	})
}

func TestMirror_LeavesUsersTheGraceWhenItsInstanceStops(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a, b := c.startInstance("a"), c.startInstance("b")
		alice := a.join("alice")
		a.join("bob")
		a.Leave(alice, false)
		a.stop()
		b.wantUser("alice", Reconnecting, 0)
		b.wantUser("bob", Reconnecting, 0)
		b.join("alice")
		b.wantUser("alice", Online, 1, "b")
		c.wantLog("alice online", "bob online")
	})
}

func TestMirror_SweepsTheUsersOfACrashedInstanceAfterTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		b := c.startInstance("b")
		b.join("bob")
		crash(t, c, "a", "alice", "bob")
		b.wantUser("alice", Online, 1, "a")
		b.wantUser("bob", Online, 2, "a", "b")
		c.age("a.1", c.redis.Lease)
		b.wantUser("alice", Reconnecting, 0)
		b.wantUser("bob", Online, 1, "b")
		c.age("a.1", c.redis.Grace)
		b.wantUser("alice", Offline, 0)
		redistest.Await(t, "alice to be swept", func() bool {
			left, _ := server.Do(c.client, "HKEYS", c.redis.Keys.Owners(0)).AsStrSlice()
			return slices.Equal(left, []string{"bob"})
		})
		b.wantUser("bob", Online, 1, "b")
		c.wantLog("bob online", "alice online", "alice offline")
	})
}

func TestShard_ConfirmsAWriteWithoutAnAnswerByItsVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		for name, version := range map[string]int64{"got through": 1, "did not": 0} {
			t.Run(name, func(t *testing.T) {
				m := newIdleMirror("a"+fmt.Sprint(version), c.redis)
				if err := m.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := m.shards[0]
				if version == 1 {
					alice := []change{{user: "alice", count: Count{Sockets: 1}}}
					if err := c.redis.mirror(t.Context(), 0, s.incarnation, 0, alice); err != nil {
						t.Fatal(err)
					}
				}
				s.versionUncertain = true
				err := s.step(t.Context(), false)
				if epoch := s.incarnation.epoch; err != nil || s.version != version || epoch != 1 {
					t.Errorf("version %d, epoch %d, %v; want %d, 1", s.version, epoch, err, version)
				}
				// and the delayed duplicate has no effect
				m.markChanged(countChange{user: "bob", came: true, at: time.Now()})
				if err := s.step(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				bob := []change{{user: "bob", count: Count{Sockets: 9}}}
				err = c.redis.mirror(t.Context(), 0, s.incarnation, version, bob)
				if !errors.Is(err, lua.ErrStaleLease) {
					t.Errorf("the duplicate: %v", err)
				}
			})
		}
	})
}

func TestMirror_DoesNotOpenWithAnotherNumberOfShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		prefix := strings.TrimSuffix(c.redis.Keys.tags[0], "{0}:")
		c.startInstance("a")
		other := c.redis
		other.Keys = NewKeys(prefix, 4)
		m := newIdleMirror("b", other)
		err := m.Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "use 1 shards, this one is set to 4") {
			t.Errorf("opened: %v", err)
		}
	})
}

func TestShard_KeepsItsLeaseWhenOthersUseAnotherNumberOfShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		m := newIdleMirror("a", c.redis)
		if err := m.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.Do(c.client, "SET", c.redis.Keys.AgreedShards(), "4")
		err := m.shards[0].renew(t.Context())
		if err == nil || errors.Is(err, lua.ErrStaleLease) || !strings.Contains(err.Error(), "use 4 shards") {
			t.Errorf("renewed: %v", err)
		}
		m.shards[0].leave(t.Context())
		step, err := c.redis.page(t.Context(), 0, 0, 1)
		if err != nil || step.at.leases.status("a.1", step.at.now, c.redis.Grace) == live {
			t.Errorf("it has left, and its lease is %v, %v", step.at.leases, err)
		}
	})
}

func TestDirectory_ListsInstancesWithTheStateOfTheirLease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease = time.Second
		a, b := c.startInstance("a"), c.startInstance("b")
		b.join("bob")
		a.join("alice")
		records, err := a.Directory().Instances(t.Context())
		if err != nil || records[0].Sockets != 1 || records[0].Users != 1 {
			t.Errorf("of itself a tells %+v, %v", records, err)
		}
		b.Drain(t.Context())
		redistest.Await(t, "b to be draining with one socket", func() bool {
			records, err := a.Directory().Instances(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(records) == 2 && records[0].ID == "a" && records[0].State == "live" &&
				records[1].State == "draining" && records[1].Sockets == 1 && records[1].Users == 1
		})
		b.stop()
		records, err = a.Directory().Instances(t.Context())
		if err != nil || len(records) != 2 || records[1].State != "left" {
			t.Errorf("after b stopped: %v, %v", records, err)
		}
	})
}
