package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fault is something that goes wrong. When play returns, its cause is gone, and everything may recover.
type fault struct {
	name string
	on   reach
	play func(run *faultRun, r *rand.Rand)
}

// reach says what play must be able to touch.
type reach int

const (
	anywhere reach = iota
	onLinks        // a link to Redis
	onRedis        // a Redis of our own
)

// faults lists everything that can be played.
var faults = []fault{
	{"clients come and go", anywhere, func(run *faultRun, r *rand.Rand) { lapse(short(r)) }},
	{"a client stalls", anywhere, func(run *faultRun, r *rand.Rand) { run.stallClient(run.cluster.one(r)) }},
	{"kill -9 of 1 of 3 instances", anywhere, func(run *faultRun, r *rand.Rand) {
		run.killInstances(run.cluster.one(r))
	}},
	{"kill -9 of 2 of 3 at once", anywhere, func(run *faultRun, r *rand.Rand) {
		run.killInstances(run.cluster.allBut(run.cluster.one(r))...)
	}},
	{"SIGTERM, and a new instance", anywhere, func(run *faultRun, r *rand.Rand) {
		run.replaceInstance(run.cluster.one(r))
	}},
	{"SIGSTOP for a moment", anywhere, func(run *faultRun, r *rand.Rand) {
		run.pauseInstance(run.cluster.one(r), short(r))
	}},
	{"SIGSTOP beyond lease and grace", anywhere, func(run *faultRun, r *rand.Rand) {
		run.pauseInstance(run.cluster.one(r), long(r))
	}},
	{"SCRIPT FLUSH", anywhere, func(run *faultRun, r *rand.Rand) { run.flushScripts() }},
	{"CLIENT KILL TYPE pubsub", anywhere, func(run *faultRun, r *rand.Rand) { run.killSubscriptions() }},
	{"link of 1 instance cut for a moment", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).cutLink, short(r), run.cluster.one(r))
	}},
	{"link of 1 instance cut beyond lease and grace", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).cutLink, long(r), run.cluster.one(r))
	}},
	{"link of 1 instance silent", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).silenceLink, some(r), run.cluster.one(r))
	}},
	{"link of 1 instance half-open", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).halfOpenLink, some(r), run.cluster.one(r))
	}},
	{"all links cut", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).cutLink, some(r), run.cluster.nodes...)
	}},
	{"all links half-open beyond lease and grace", onLinks, func(run *faultRun, r *rand.Rand) {
		run.partition((*node).halfOpenLink, long(r), run.cluster.nodes...)
	}},
	{"all links delayed", onLinks, func(run *faultRun, r *rand.Rand) {
		run.delayLinks(between(r, 0, clusterLease/5), short(r))
	}},
	{"subscription stalled to its output limit", onRedis, func(run *faultRun, r *rand.Rand) {
		run.overflowSubscription(run.cluster.one(r))
	}},
	{"FLUSHALL under load", onRedis, func(run *faultRun, r *rand.Rand) { run.emptyRedis() }},
	{"redis-server killed, back empty", onRedis, func(run *faultRun, r *rand.Rand) {
		run.killRedis(some(r))
	}},
	{"FLUSHALL while 1 instance is stopped", onRedis, func(run *faultRun, r *rand.Rand) {
		run.emptyRedisBehind(run.cluster.one(r), some(r))
	}},
	{"kill -9 of 1 instance while redis-server is paused", onRedis, func(run *faultRun, r *rand.Rand) {
		run.killWithoutRedis(run.cluster.one(r), some(r))
	}},
	{"SIGTERM while all links are cut", onLinks, func(run *faultRun, r *rand.Rand) {
		run.replaceWithoutRedis(run.cluster.one(r), some(r))
	}},
	{"redis-server paused for a moment", onRedis, func(run *faultRun, r *rand.Rand) {
		run.pauseRedis(short(r))
	}},
	{"redis-server paused beyond lease and grace", onRedis, func(run *faultRun, r *rand.Rand) {
		run.pauseRedis(long(r))
	}},
}

func TestFaults_PresenceIsExactThroughEach(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 18)
	for n, f := range faults {
		c.play(f, uint64(n))
	}
	t.Logf("\n%s", c.report)
}

func short(r *rand.Rand) time.Duration { return between(r, 0, clusterLease) }
func some(r *rand.Rand) time.Duration  { return between(r, 0, clusterLease+clusterGrace) }
func long(r *rand.Rand) time.Duration {
	return between(r, clusterLease+clusterGrace, clusterLease+clusterGrace+time.Second)
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

func (c *cluster) one(r *rand.Rand) *node { return c.nodes[r.IntN(len(c.nodes))] }

func (c *cluster) allBut(one *node) []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == one })
}
