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
	chaosFor  = flag.Duration("chaos.for", 20*time.Second, "how long TestChaos plays")
	chaosSeed = flag.Uint64("chaos.seed", 0, "the schedule of TestChaos; 0: any, and it says which")
	chaosOnly = flag.String("chaos.only", "",
		"what the names of the faults that TestChaos plays must contain")
	chaosRedis = flag.String("chaos.redis", "",
		"URL of a Redis for TestChaos; only what can be done to it from outside is played. "+
			"Without it, one of its own")
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
	c := startCluster(t, 30, clusterForChaos)
	r := rand.New(rand.NewPCG(seed, 0))
	playable := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return !strings.Contains(f.name, *chaosOnly) || f.on == onRedis && c.server == nil ||
			f.on == onLinks && !c.linked
	})
	if len(playable) == 0 {
		t.Fatalf("no fault that can be played here has a name with %q in it", *chaosOnly)
	}
	var order []int // every fault once, before any comes twice
	for end := time.Now().Add(*chaosFor); time.Now().Before(end) && !t.Failed(); order = order[1:] {
		if len(order) == 0 {
			order = r.Perm(len(playable))
		}
		c.play(playable[order[0]], r.Uint64())
	}
	t.Logf("seed %d\n%s", seed, c.report)
}

// play plays one fault, perhaps while some clients disconnect and return, and verifies everything after it.
func (c *cluster) play(f fault, seed uint64) {
	c.t.Helper()
	c.t.Log(f.name)
	r, restless := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
	run := c.begin(f.name)
	if r.IntN(2) == 0 {
		f.play(run, r)
		run.finish()
		return
	}
	var churn sync.WaitGroup
	churn.Go(func() { c.pool.churn(restless) })
	lapse(between(r, 0, time.Second/2))
	f.play(run, r)
	churn.Wait()
	run.faultEnded = time.Now()
	run.finish()
}

// churn has some clients lose their connection, stay away for a time, or leave, and return.
func (p *clientPool) churn(r *rand.Rand) {
	for range 1 + r.IntN(5) {
		c := p.clients[r.IntN(len(p.clients))]
		switch r.IntN(3) {
		case 0:
			c.dropSocket()
		case 1:
			c.vanish()
		case 2:
			c.leave()
		}
		lapse(between(r, 0, clusterGrace/4))
		p.comeBack(c)
	}
}

// clusterForChaos puts the cluster on the Redis that the flags name, if they do, with a prefix of its own,
// and removes its keys at the end.
func clusterForChaos(c *cluster) {
	if *chaosRedis == "" {
		return
	}
	option, err := rueidis.ParseURL(*chaosRedis)
	if err != nil {
		c.t.Fatal(err)
	}
	option.DisableCache = true
	direct, err := rueidis.NewClient(option)
	if err != nil {
		c.t.Fatal(err)
	}
	c.reachedAt(*chaosRedis, direct)
	c.prefix = "chaos:" + cryptorand.Text() + ":"
	c.t.Cleanup(func() { c.removeKeys(); direct.Close() })
	info, _ := c.redis("INFO", "server").ToString()
	// with TLS the name of a link would not fit the certificate, and the nodes of a Cluster name each other
	c.linked = c.url.Scheme == "redis" && len(option.InitAddress) == 1 &&
		strings.Contains(info, "redis_mode:standalone")
	c.othersClients = c.subscribers()
}

// removeKeys removes all keys of this cluster: those of one shard.
func (c *cluster) removeKeys() {
	for _, key := range []string{"owners", "leases", "log", "seen", "clock", "instances", "shards"} {
		c.redisClient.Do(context.Background(), c.redisClient.B().Del().Key(c.prefix+"{0}:"+key).Build())
	}
}
