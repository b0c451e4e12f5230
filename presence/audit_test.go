package presence

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

func (i *instance) wantAudit(missing, ghosts int) Audit {
	i.t.Helper()
	got, err := i.Audit(i.t.Context())
	if err != nil || got.Missing != missing || got.Ghosts != ghosts {
		i.t.Errorf("audit: %+v, %v; want %d missing and %d ghosts", got, err, missing, ghosts)
	}
	return got
}

func TestAudit_FindsMissingUsersWrongCountsAndGhostsAndMendsThem(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 2)
		a, b := c.startInstance("a"), c.startInstance("b")
		for n := range 1200 {
			a.sockets.Add(&Socket{User: fmt.Sprintf("user%d", n), Conn: &inbox{}})
		}
		b.join("user3")
		a.waitMirrored()
		if got := a.wantAudit(0, 0); got.Users != 1200 || got.Entries != 1200 || got.OldestSeconds != 0 {
			t.Errorf("%+v", got)
		}
		keys := c.redis.Keys
		owners := func(user string) string { return keys.Owners(keys.ShardOf(user)) }
		server.Do(c.client, "HDEL", owners("user1"), "user1")
		server.Do(c.client, "HSET", owners("user2"), "user2", "1 a.1:9")
		server.Do(c.client, "HSET", owners("ghost"), "ghost", "1 a.1:1")
		server.Do(c.client, "HSET", owners("old"), "old", "1 a.0:1 b.1:0")
		b.wantAudit(0, 1) // the entry of old claims b too
		found := a.wantAudit(2, 2)
		if found.OldestSeconds <= 0 {
			t.Errorf("%+v", found)
		}
		a.waitMirrored()
		b.waitMirrored()
		a.wantAudit(0, 0)
		b.wantAudit(0, 0)
		a.wantUser("user1", Online, 1, "a")
		a.wantUser("user2", Online, 1, "a")
		a.wantUser("ghost", Offline, 0)
		a.wantUser("old", Offline, 0)
		if differences, oldest := a.Audits(); differences != 4 || oldest != 0 {
			t.Errorf("%d differences in all, the oldest for %v", differences, oldest)
		}
	})
}

func TestAudit_CountsNoUserWhoComesOrGoesMeanwhile(t *testing.T) {
	server := redistest.Start(t)
	a := newCluster(t, server, 1).startInstance("a")
	ctx, cancel := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	for w := range 4 {
		churn.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				socket, _ := newSocket(fmt.Sprintf("user%d-%d", w, n%200))
				a.sockets.Add(socket)
				<-time.After(time.Millisecond) // there for a moment; without a pause the audits would starve
				a.Leave(socket, n%2 == 0)
			}
		})
	}
	for range 100 {
		if found, err := a.Audit(t.Context()); err != nil || found.Missing+found.Ghosts > 0 {
			t.Errorf("%+v, %v", found, err)
			break
		}
	}
	cancel()
	churn.Wait()
}

func TestAudit_CountsNoGraceThatEndedElsewhere(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a, b := c.startInstance("a"), c.startInstance("b")
		here, there := a.join("alice"), b.join("alice")
		a.Leave(here, false)
		a.waitMirrored()
		b.Leave(there, true)
		b.waitMirrored()
		a.wantAudit(0, 0)
		c.wantLog("alice online", "alice offline")
	})
}

func TestAuditLoop_MendsByItself(t *testing.T) {
	server := redistest.Start(t)
	c := newCluster(t, server, 1)
	c.redis.Lease, c.redis.Grace = time.Second, time.Second
	a := c.startInstance("a")
	a.join("alice")
	server.Do(c.client, "HDEL", c.redis.Keys.Owners(0), "alice")
	server.Do(c.client, "HSET", c.redis.Keys.Owners(0), "ghost", "1 a.1:1")
	server.Do(c.client, "HSET", c.redis.Keys.Owners(0), "orphan", "1 z.1:1") // z has no lease, and is no more
	redistest.Await(t, "alice back, and the ghost and the orphan gone", func() bool {
		owners, _ := server.Do(c.client, "HGETALL", c.redis.Keys.Owners(0)).AsStrMap()
		_, back := owners["alice"]
		return back && len(owners) == 1
	})
}
