package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fault is something that goes wrong, and is right again when play returns, or may then mend.
type fault struct {
	name string
	on   reach
	play func(s *step, r *rand.Rand)
}

// reach is what a fault must have in its hands.
type reach int

const (
	anywhere reach = iota
	onLinks        // a link to Redis
	onRedis        // a Redis of our own
)

// faults are all that can be played.
var faults = []fault{
	{"clients come and go", anywhere, func(s *step, r *rand.Rand) { lapse(short(r)) }},
	{"a client stalls", anywhere, func(s *step, r *rand.Rand) { s.stallClient(s.w.one(r)) }},
	{"kill -9 of 1 of 3 instances", anywhere, func(s *step, r *rand.Rand) { s.killInstances(s.w.one(r)) }},
	{"kill -9 of 2 of 3 at once", anywhere, func(s *step, r *rand.Rand) { s.killInstances(s.w.allBut(s.w.one(r))...) }},
	{"SIGTERM, and a new instance", anywhere, func(s *step, r *rand.Rand) { s.replaceInstance(s.w.one(r)) }},
	{"SIGSTOP for a moment", anywhere, func(s *step, r *rand.Rand) { s.pauseInstance(s.w.one(r), short(r)) }},
	{"SIGSTOP beyond lease and grace", anywhere, func(s *step, r *rand.Rand) { s.pauseInstance(s.w.one(r), long(r)) }},
	{"SCRIPT FLUSH", anywhere, func(s *step, r *rand.Rand) { s.flushScripts() }},
	{"CLIENT KILL TYPE pubsub", anywhere, func(s *step, r *rand.Rand) { s.killSubscriptions() }},
	{"link of 1 instance cut for a moment", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).cutLink, short(r), s.w.one(r)) }},
	{"link of 1 instance cut beyond lease and grace", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).cutLink, long(r), s.w.one(r)) }},
	{"link of 1 instance silent", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).silenceLink, some(r), s.w.one(r)) }},
	{"link of 1 instance half-open", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).halfOpenLink, some(r), s.w.one(r)) }},
	{"all links cut", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).cutLink, some(r), s.w.sites...) }},
	{"all links half-open beyond lease and grace", onLinks, func(s *step, r *rand.Rand) { s.partition((*site).halfOpenLink, long(r), s.w.sites...) }},
	{"all links delayed", onLinks, func(s *step, r *rand.Rand) { s.delayLinks(between(r, 0, worldLease/5), short(r)) }},
	{"subscription stalled to its output limit", onRedis, func(s *step, r *rand.Rand) { s.overflowSubscription(s.w.one(r)) }},
	{"FLUSHALL under load", onRedis, func(s *step, r *rand.Rand) { s.emptyRedis() }},
	{"redis-server killed, back empty", onRedis, func(s *step, r *rand.Rand) { s.killRedis(some(r)) }},
	{"FLUSHALL while 1 instance is stopped", onRedis, func(s *step, r *rand.Rand) { s.emptyRedisBehind(s.w.one(r), some(r)) }},
	{"kill -9 of 1 instance while redis-server is paused", onRedis, func(s *step, r *rand.Rand) { s.killWithoutRedis(s.w.one(r), some(r)) }},
	{"SIGTERM while all links are cut", onLinks, func(s *step, r *rand.Rand) { s.replaceWithoutRedis(s.w.one(r), some(r)) }},
	{"redis-server paused for a moment", onRedis, func(s *step, r *rand.Rand) { s.pauseRedis(short(r)) }},
	{"redis-server paused beyond lease and grace", onRedis, func(s *step, r *rand.Rand) { s.pauseRedis(long(r)) }},
}

func TestPresenceIsExactThroughEveryFault(t *testing.T) {
	t.Parallel()
	w := startWorld(t, 18)
	for n, f := range faults {
		w.play(f, uint64(n))
	}
	t.Logf("\n%s", w.report)
}

func short(r *rand.Rand) time.Duration { return between(r, 0, worldLease) }
func some(r *rand.Rand) time.Duration  { return between(r, 0, worldLease+worldGrace) }
func long(r *rand.Rand) time.Duration {
	return between(r, worldLease+worldGrace, worldLease+worldGrace+time.Second)
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

func (w *world) one(r *rand.Rand) *site { return w.sites[r.IntN(len(w.sites))] }

func (w *world) allBut(one *site) []*site {
	return slices.DeleteFunc(slices.Clone(w.sites), func(n *site) bool { return n == one })
}
