package presence

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

func TestMirror_WritesAllUsersAgainWhenRedisLosesItsData(t *testing.T) {
	const users = 600 // more than two calls
	for name, loss := range map[string]struct {
		lose   func(c *cluster)
		logged int64 // changes in the log at the end: nobody came or went, so only what Redis had before
	}{
		"emptied":       {func(c *cluster) { c.server.Do(c.client, "FLUSHALL") }, 0},
		"lease evicted": {func(c *cluster) { c.server.Do(c.client, "DEL", c.redis.Keys.Leases(0)) }, users},
		"version rolled back": {func(c *cluster) {
			lease, _ := c.server.Do(c.client, "HGET", c.redis.Keys.Leases(0), "a.1").ToString()
			deadline, _, _ := strings.Cut(lease, " ")
			c.server.Do(c.client, "HSET", c.redis.Keys.Leases(0), "a.1", deadline+" 0")
			c.server.Do(c.client, "HDEL", c.redis.Keys.Owners(0), "user7", "user8")
		}, users},
		// they were offline, as far as anybody could tell, and are back
		"given up for dead": {func(c *cluster) {
			lease, _ := c.server.Do(c.client, "HGET", c.redis.Keys.Leases(0), "a.1").ToString()
			c.server.Do(c.client, "HSET", c.redis.Keys.Leases(0), "a.1", lease+" dead")
		}, 3 * users},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, server *redistest.Server) {
				c := newCluster(t, server, 1)
				c.redis.Lease = time.Second // so that the loss is soon noticed
				a := c.startInstance("a")
				for n := range users {
					a.sockets.Add(&Socket{User: fmt.Sprintf("user%d", n), Conn: &inbox{}})
				}
				a.waitMirrored()
				loss.lose(c)
				redistest.Await(t, "all to be there under another incarnation", func() bool {
					owners, _ := server.Do(c.client, "HGETALL", c.redis.Keys.Owners(0)).AsStrMap()
					for _, entry := range owners {
						if strings.Contains(entry, "a.1:") {
							return false
						}
					}
					return len(owners) == users
				})
				a.waitMirrored()
				a.wantUser("user7", Online, 1, "a")
				logged, _ := server.Do(c.client, "XLEN", c.redis.Keys.Log(0)).AsInt64()
				if logged != loss.logged {
					t.Errorf("%d changes logged, want %d", logged, loss.logged)
				}
			})
		})
	}
}

func TestMirror_DefersGoingUntilOthersCouldTellRedisTheirsAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease, c.redis.Grace = 5*time.Second, time.Hour
		a := c.startInstance("a")
		alice, bob := a.join("alice"), a.join("bob")
		crash(t, c, "b", "alice") // or hangs
		server.Do(c.client, "FLUSHALL")
		redistest.Await(t, "a to notice", func() bool { return strings.Contains(c.entry("bob"), "a.2:1") })
		a.Leave(alice, true)
		a.Leave(bob, true)
		a.waitMirrored()
		a.waitMirrored() // what was told once is not told again
		for _, user := range []string{"alice", "bob"} {
			if entry := c.entry(user); !strings.HasSuffix(entry, " a.2:0") {
				t.Errorf("%s: %q", user, entry)
			}
		}
		c.wantLog()
		crash(t, c, "c", "alice") // another that has noticed nothing yet tells what it has
		a.graceSinceLossIsOver()
		redistest.Await(t, "both to have left a", func() bool {
			return !strings.Contains(c.entry("alice"), "a.2") && c.entry("bob") == ""
		})
		c.wantLog("bob offline")
	})
}

func TestMirror_LogsNobodyAgainWhoChangesBeforeALossIsNoticed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease, c.redis.Grace = 5*time.Second, time.Hour
		a := c.startInstance("a")
		a.join("alice")
		bob := a.join("bob")
		keys := c.redis.Keys
		server.Do(c.client, "DEL", keys.Owners(0), keys.Leases(0), keys.Seen(0)) // all but the log
		second, _ := newSocket("alice")
		a.sockets.Add(second)
		a.Leave(bob, true)
		redistest.Await(t, "both to be mirrored again", func() bool {
			alice, bob := c.entry("alice"), c.entry("bob")
			return strings.HasSuffix(alice, " a.2:2") && strings.HasSuffix(bob, " a.2:0")
		})
		a.graceSinceLossIsOver()
		redistest.Await(t, "bob to go", func() bool { return c.entry("bob") == "" })
		c.wantLog("alice online", "bob online", "bob offline")
	})
}

// graceSinceLossIsOver acts as if a grace had passed since the loss.
func (i *instance) graceSinceLossIsOver() {
	for _, s := range i.shards {
		s.lossNoticed.Store(0)
	}
}

// entry is what Redis holds of a user; empty: nothing.
func (c *cluster) entry(user string) string {
	c.t.Helper()
	entry, _ := c.server.Do(c.client, "HGET", c.redis.Keys.Owners(0), user).ToString()
	return entry
}

func TestDirectory_IsStaleBeforeAnybodyHasNoticedALoss(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease = time.Minute
		a := c.startInstance("a")
		a.join("alice")
		server.Do(c.client, "DEL", c.redis.Keys.Leases(0), c.redis.Keys.Instances(), c.redis.Keys.Owners(0))
		if present, _, stale := a.Directory().Count(t.Context()); !stale {
			t.Errorf("counted %d, stale %v", present, stale)
		}
		if records, err := a.Directory().Instances(t.Context()); err == nil {
			t.Errorf("listed %v", records)
		}
	})
}

func TestShard_RecoversUntilAllItsUsersAreInRedisAgain(t *testing.T) {
	m := newIdleMirror("a", Redis{Keys: NewKeys("x", 1)})
	m.started = m.started.Add(-time.Hour)
	s := m.shards[0]
	s.raiseEpoch()
	s.lossNoticed.Store(1) // an hour ago
	if !s.recoveringFromLoss() {
		t.Error("not all users are there again")
	}
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a := c.startInstance("a")
		server.Do(c.client, "DEL", c.redis.Keys.Leases(0))
		a.join("alice")
		redistest.Await(t, "them to be there", func() bool {
			return a.shards[0].lease() == leaseHeld && a.remirrors.Load() > 0
		})
	})
}
