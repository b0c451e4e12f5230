package main

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

func TestFaults_PresenceIsExactThroughASentinelFailover(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, nil)
	c := startCluster(t, 12, func(c *cluster) {
		c.reachedAt(sentinels.URL(), sentinels.Master.Client())
		c.sharesClock = true
		c.flags = []string{"--redis-sentinel-username=" + sentinels.Username,
			"--redis-sentinel-password=" + sentinels.Password}
	})
	run := c.begin("Sentinel fails over")
	run.failOver(sentinels.Master, sentinels.AwaitHeir)
	c.redisClient = sentinels.Replica.Client()
	run.finish()
	t.Logf("\n%s", c.report)
}

func TestFaults_PresenceIsExactThroughAMovedSlotAndALostMasterOfACluster(t *testing.T) {
	t.Parallel()
	redisCluster := redistest.StartCluster(t, true)
	option, err := rueidis.ParseURL(redisCluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	direct, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	c := startCluster(t, 12, func(c *cluster) {
		c.reachedAt(redisCluster.URL(), direct)
		c.sharesClock = true
	})
	owners := c.prefix + "{0}:owners"
	run := c.begin("slot of a Cluster moved")
	run.unreachable = true // while the slot is in two places, scripts are refused
	redisCluster.MoveSlot(owners)
	run.faultEnded = time.Now()
	run.finish()

	run = c.begin("master of a Cluster killed")
	lost := slices.IndexFunc(redisCluster.Masters, func(master *redistest.Server) bool {
		return master.Ask("HLEN", owners).Error() == nil
	})
	run.failOver(redisCluster.Masters[lost], func() { redisCluster.AwaitHeir(lost) })
	run.finish()
	t.Logf("\n%s", c.report)
}

// failOver kills a master and waits until another has taken over. The writes that Redis accepted last may be
// lost.
func (run *faultRun) failOver(master *redistest.Server, awaitHeir func()) {
	run.lostState, run.unreachable, run.lostMessages = true, true, true
	master.Kill()
	awaitHeir()
	run.faultEnded = time.Now()
}
