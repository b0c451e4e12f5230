package main

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestSweep_TheSweeperMayDieWhileItSweeps(t *testing.T) {
	t.Parallel()
	const ghosts = 100_000 // of an instance that died long ago: a sweep of 100 steps
	c := startCluster(t, 9)
	run := c.begin("kill -9 of the sweeper while it sweeps")
	keys := presence.NewKeys(c.prefix, 1)
	sweeper := slices.MinFunc(c.nodes, func(a, b *node) int {
		return cmp.Compare(a.instance().Instance, b.instance().Instance)
	})
	// so that the sweep takes a while. A longer delay would cost the sweeper its lease on a busy machine.
	sweeper.delayLink(clusterLease / 50)
	c.leaveGhosts(keys, ghosts)
	left := func() int64 {
		n, _ := c.redis("HLEN", keys.Owners(0)).AsInt64()
		return n
	}
	redistest.Eventually(t, "the sweep to begin", func() (int64, bool) {
		n := left()
		return n, n < ghosts
	})
	run.killInstances(sweeper)
	redistest.Eventually(t, "another to end the sweep", func() (int64, bool) {
		n := left()
		return n, n <= 9
	})
	run.finish()
	redistest.Eventually(t, "the lease of the ghosts to be gone", func() (bool, bool) {
		still, _ := c.redis("HEXISTS", keys.Leases(0), "ghost.1").AsBool()
		return still, !still
	})
}

// leaveGhosts writes to Redis what an instance with so many users leaves behind that died an hour ago.
func (c *cluster) leaveGhosts(keys presence.Keys, users int) {
	c.t.Helper()
	died := time.Now().Add(-time.Hour).UnixMilli()
	entries := []string{"HSET", keys.Owners(0)}
	for n := range users {
		entries = append(entries, fmt.Sprintf("ghost-%d", n), fmt.Sprintf("%d ghost.1:1", died))
	}
	c.redis(entries...)
	// The lease comes last. Before the entries, a pass could end between the two and take the lease away, and
	// only an audit, a minute later, would find entries of an unknown instance.
	c.redis("HSET", keys.Leases(0), "ghost.1", fmt.Sprintf("%d 1", died))
}
