package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// killInstances kills instances, and starts new ones later. Of the users who had sockets only there, every
// second one does not reconnect meanwhile. It measures how long others report those as online, and how long
// until they are swept.
func (run *faultRun) killInstances(nodes ...*node) {
	run.cluster.t.Helper()
	run.awaitSwept(run.crash(nodes))
}

// killedInstances is what was killed at once, and the users who do not reconnect.
type killedInstances struct {
	nodes   []*node
	users   []*user
	clients []*client
	killed  time.Time // when the first was killed
	over    time.Time // when the last was
}

func (run *faultRun) crash(nodes []*node) *killedInstances {
	d := &killedInstances{nodes: nodes}
	d.users, d.clients = run.cluster.pool.holdSome(nodes)
	d.killed = time.Now()
	for _, n := range nodes {
		n.kill()
	}
	d.over = time.Now()
	return d
}

func (run *faultRun) awaitSwept(d *killedInstances) {
	c := run.cluster
	c.t.Helper()
	survivor := c.serving()[0]
	for _, aim := range []struct {
		name    string
		reached func(state string, present bool) bool
	}{
		{"no longer online", func(state string, present bool) bool { return state != "online" }},
		{"swept", func(state string, present bool) bool { return !present }},
	} {
		redistest.Eventually(c.t, "the users of the dead to be "+aim.name,
			func() (map[string]presenceView, bool) {
				users, stale, err := survivor.readPresence("/presence?limit=1000")
				return users, err == nil && !stale && !slices.ContainsFunc(d.users, func(u *user) bool {
					view, present := users[u.name]
					return !aim.reached(view.State, present)
				})
			})
		if len(d.users) > 0 {
			c.report.played(run.name+": "+aim.name, time.Since(d.killed))
		}
	}
	c.wantSeen(survivor, d)
	for _, n := range d.nodes {
		n.start()
	}
	c.pool.release(d.clients)
	run.faultEnded = time.Now()
}

// wantSeen checks when users were last seen, as reported: at the time when their instance was killed, or as
// long after it as its lease was valid. The last renewal may have been on its way.
func (c *cluster) wantSeen(node *node, d *killedInstances) {
	c.t.Helper()
	for _, u := range d.users {
		users, _, err := node.readPresence("/presence?user=" + u.name)
		seen := users[u.name].LastSeen
		if err != nil || c.sharesClock && (seen == nil || seen.Before(u.lastConnected) ||
			seen.After(d.over.Add(clusterLease+clusterLease/5))) {
			c.t.Errorf("%s was connected from %v to %v, and is reported as last seen at %v, %v", u.name,
				u.lastConnected, d.over, seen, err)
		}
	}
}

// pauseInstance makes an instance hang for a time.
func (run *faultRun) pauseInstance(n *node, d time.Duration) {
	n.freeze()
	began := time.Now()
	lapse(d)
	n.thaw()
	n.addCutOff(time.Since(began))
	run.faultEnded = time.Now()
}

// killWithoutRedis kills an instance while Redis hangs.
func (run *faultRun) killWithoutRedis(n *node, d time.Duration) {
	run.cluster.t.Helper()
	run.unreachable = true
	run.cluster.server.Pause()
	dead := run.crash([]*node{n})
	lapse(d)
	run.cluster.server.Resume()
	// only now Redis does what the instance sent before it died, such as a renewal of its lease
	dead.over = time.Now()
	run.awaitSwept(dead)
}

// replaceWithoutRedis stops an instance while no instance can reach Redis, and starts another when they can
// again.
func (run *faultRun) replaceWithoutRedis(n *node, d time.Duration) {
	run.cluster.t.Helper()
	run.unreachable = true
	run.cluster.eachNode((*node).cutLink)
	n.leave()
	lapse(d)
	run.cluster.eachNode((*node).healLink)
	n.start()
	run.faultEnded = time.Now()
}

// emptyRedisBehind empties Redis while an instance hangs.
func (run *faultRun) emptyRedisBehind(n *node, d time.Duration) {
	run.cluster.t.Helper()
	n.freeze()
	began := time.Now()
	run.emptyRedis()
	lapse(d)
	n.thaw()
	// only Redis knew of the sockets of this instance, and it has forgotten them
	n.addCutOff(max(time.Since(began), clusterGrace))
	run.faultEnded = time.Now()
}

// stallClient opens a socket that does not read, and pushes to it until its instance closes it. It does not
// check the state in the answers: a lease may have expired for a moment.
func (run *faultRun) stallClient(n *node) {
	c := run.cluster
	c.t.Helper()
	before := n.tooSlow()
	stallClient(c.t, n.instance().App, "dave")
	body := `{"event":"x","data":"` + strings.Repeat("x", 60_000) + `"}`
	redistest.Eventually(c.t, "dave to be closed", func() (string, bool) {
		got, _, _ := c.nodes[0].call("POST", "/push/dave?wait=written&timeout=10ms", body)
		return got.text, n.tooSlow() != before
	})
	run.faultEnded = time.Now()
}

// tooSlow reads the instance's count of clients that were too slow from /metrics.
func (n *node) tooSlow() string {
	n.cluster.t.Helper()
	return redistest.Eventually(n.cluster.t, "the instance to count slow clients", func() (string, bool) {
		got, _, _ := n.call("GET", "/metrics", "")
		_, after, found := strings.Cut(got.text, `rollcall_drops_total{reason="socket_too_slow"} `)
		count, _, _ := strings.Cut(after, "\n")
		return count, found
	})
}

// replaceInstance stops an instance with SIGTERM, and starts another.
func (run *faultRun) replaceInstance(n *node) {
	run.cluster.t.Helper()
	n.leave()
	n.start()
	run.faultEnded = time.Now()
}

// partition breaks the links of some nodes for a time.
func (run *faultRun) partition(how func(*node), d time.Duration, nodes ...*node) {
	run.cluster.t.Helper()
	run.unreachable = len(nodes) == len(run.cluster.nodes)
	began := time.Now()
	for _, n := range nodes {
		how(n)
	}
	lapse(d)
	for _, n := range nodes {
		n.healLink()
		if !run.unreachable {
			n.addCutOff(time.Since(began))
		}
	}
	run.faultEnded = time.Now()
}

func (run *faultRun) delayLinks(by, d time.Duration) {
	run.cluster.t.Helper()
	for _, n := range run.cluster.nodes {
		n.delayLink(by)
	}
	lapse(d)
	for _, n := range run.cluster.nodes {
		n.healLink()
	}
	run.faultEnded = time.Now()
}

// redis runs a command on the Redis itself, not through a link. It tries again if the connection was lost, as
// after a restart of Redis.
func (c *cluster) redis(words ...string) rueidis.RedisResult {
	c.t.Helper()
	result := redistest.Eventually(c.t, "Redis to answer "+words[0], func() (rueidis.RedisResult, bool) {
		result := c.redisClient.Do(context.Background(), c.redisClient.B().Arbitrary(words...).Build())
		return result, result.NonRedisError() == nil
	})
	if err := result.Error(); err != nil && !rueidis.IsRedisNil(err) {
		c.t.Fatalf("%s: %v", words[0], err)
	}
	return result
}

func (run *faultRun) flushScripts() {
	run.cluster.redis("SCRIPT", "FLUSH")
	run.faultEnded = time.Now()
}

// emptyRedis deletes everything in Redis.
func (run *faultRun) emptyRedis() {
	run.lostState = true
	run.cluster.redis("FLUSHALL")
	run.faultEnded = time.Now()
}

// killRedis kills the server, and starts it again after a time. It is empty then.
func (run *faultRun) killRedis(d time.Duration) {
	run.lostState, run.unreachable, run.lostMessages = true, true, true
	run.cluster.server.Kill()
	lapse(d)
	run.cluster.server.Restart()
	run.faultEnded = time.Now()
}

// pauseRedis makes the server hang for a time.
func (run *faultRun) pauseRedis(d time.Duration) {
	run.unreachable = true
	run.cluster.server.Pause()
	lapse(d)
	run.cluster.server.Resume()
	run.faultEnded = time.Now()
}

// killSubscriptions closes the connections on which instances listen. In a Redis that is not ours it spares
// the subscribers that were there before us.
func (run *faultRun) killSubscriptions() {
	run.lostMessages = true
	for _, id := range run.cluster.subscribers() {
		if !slices.Contains(run.cluster.othersClients, id) {
			run.cluster.redis("CLIENT", "KILL", "ID", id)
		}
	}
	run.faultEnded = time.Now()
	run.wantListening()
}

// wantListening waits until Redis has a subscriber for every instance, and notes how long that took.
func (run *faultRun) wantListening() {
	c := run.cluster
	c.t.Helper()
	for _, n := range c.serving() {
		redistest.Eventually(c.t, "the instance to listen", func() (int64, bool) {
			heard, err := c.redis("PUBSUB", "NUMSUB", c.prefix+"{0}:to:"+n.instance().Instance).ToArray()
			if err != nil || len(heard) != 2 {
				return 0, false
			}
			listeners, _ := heard[1].AsInt64()
			return listeners, listeners > 0
		})
	}
	c.report.played(run.name+": all listen again", time.Since(run.faultEnded))
}

// subscribers returns the ids of Redis' clients that have subscribed.
func (c *cluster) subscribers() (ids []string) {
	c.t.Helper()
	list, _ := c.redis("CLIENT", "LIST", "TYPE", "pubsub").ToString()
	for _, word := range strings.Fields(list) {
		if id, ok := strings.CutPrefix(word, "id="); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// overflowSubscription slows down what one instance listens to until Redis reaches its output limit and
// closes the connection.
func (run *faultRun) overflowSubscription(n *node) {
	c := run.cluster
	c.t.Helper()
	run.lostMessages = true
	c.redis("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 0 0")
	n.narrowLink(50)
	unknown := []byte{0x80, 0x80, 0x40, 99} // 1 MB follows; an envelope of a kind that no version knows
	junk := rueidis.BinaryString(append(unknown, make([]byte, 1<<20-1)...))
	for listens := true; listens; {
		receivers, _ := c.redis("PUBLISH", c.prefix+"{0}:to:"+n.instance().Instance, junk).AsInt64()
		listens = receivers > 0
	}
	run.faultEnded = time.Now()
	run.wantListening() // although the link is as narrow as before
	n.healLink()
	run.faultEnded = time.Now()
}
