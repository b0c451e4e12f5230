package main

import (
	"context"
	cryptorand "crypto/rand"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

var (
	chaosFor   = flag.Duration("chaos.for", 20*time.Second, "how long TestChaos plays")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "the schedule of TestChaos; 0: any, and it says which")
	chaosOnly  = flag.String("chaos.only", "", "what the names of the faults that TestChaos plays must contain")
	chaosRedis = flag.String("chaos.redis", "", "URL of a Redis for TestChaos; only what can be done to it from outside is played. Without it, one of its own")
)

func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the same schedule again: make chaos FOR=%v SEED=%d", *chaosFor, seed)
		}
	})
	w := startWorld(t, 30, chaosWorld)
	r := rand.New(rand.NewPCG(seed, 0))
	playable := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return !strings.Contains(f.name, *chaosOnly) || f.on == onRedis && w.server == nil || f.on == onLinks && !w.linked
	})
	if len(playable) == 0 {
		t.Fatalf("no fault that can be played here has a name with %q in it", *chaosOnly)
	}
	var order []int // every fault once, before any comes twice
	for end := time.Now().Add(*chaosFor); time.Now().Before(end) && !t.Failed(); order = order[1:] {
		if len(order) == 0 {
			order = r.Perm(len(playable))
		}
		w.play(playable[order[0]], r.Uint64())
	}
	t.Logf("seed %d\n%s", seed, w.report)
}

// play plays one fault, perhaps while some clients come and go, and wants everything to be right after it.
func (w *world) play(f fault, seed uint64) {
	w.t.Helper()
	w.t.Log(f.name)
	r, restless := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
	s := w.begin(f.name)
	if r.IntN(2) == 0 {
		f.play(s, r)
		s.settle()
		return
	}
	var churn sync.WaitGroup
	churn.Go(func() { w.regulars.churn(restless) })
	lapse(between(r, 0, time.Second/2))
	f.play(s, r)
	churn.Wait()
	s.over = time.Now()
	s.settle()
}

// churn lets some clients drop, vanish for a time, or leave, and come back.
func (c *regulars) churn(r *rand.Rand) {
	for range 1 + r.IntN(5) {
		m := c.members[r.IntN(len(c.members))]
		switch r.IntN(3) {
		case 0:
			m.dropSocket()
		case 1:
			m.vanish()
		case 2:
			m.leave()
		}
		lapse(between(r, 0, worldGrace/4))
		c.comeBack(m)
	}
}

// chaosWorld puts the world on the Redis of the flags, if there is one, under names of its own, which it cleans up.
func chaosWorld(w *world) {
	if *chaosRedis == "" {
		return
	}
	option, err := rueidis.ParseURL(*chaosRedis)
	if err != nil {
		w.t.Fatal(err)
	}
	option.DisableCache = true
	direct, err := rueidis.NewClient(option)
	if err != nil {
		w.t.Fatal(err)
	}
	w.at(*chaosRedis, direct)
	w.prefix = "chaos:" + cryptorand.Text() + ":"
	w.t.Cleanup(func() { w.removeKeys(); direct.Close() })
	info, _ := w.redis("INFO", "server").ToString()
	// under TLS a link's name would not fit, and nodes of a Cluster name each other
	w.linked = w.url.Scheme == "redis" && len(option.InitAddress) == 1 && strings.Contains(info, "redis_mode:standalone")
	w.strangers = w.subscribers()
}

// removeKeys removes all keys of this world: those of one shard.
func (w *world) removeKeys() {
	for _, key := range []string{"owners", "leases", "log", "seen", "clock", "instances", "shards"} {
		w.direct.Do(context.Background(), w.direct.B().Del().Key(w.prefix+"{0}:"+key).Build())
	}
}
