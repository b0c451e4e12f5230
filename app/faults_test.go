package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
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

// killInstances kills instances. Of those who have sockets there alone, every other one does not come back; how long it takes until
// they are believed to be online no more, and are swept, is noted. Then there are new instances.
func (s *step) killInstances(sites ...*site) {
	w := s.w
	w.t.Helper()
	away, members := w.regulars.holdSome(sites)
	killed := time.Now()
	for _, n := range sites {
		n.kill()
	}
	dead := time.Now()
	survivor := w.serving()[0]
	for _, aim := range []struct {
		name    string
		reached func(state string, present bool) bool
	}{
		{"no longer online", func(state string, present bool) bool { return state != "online" }},
		{"swept", func(state string, present bool) bool { return !present }},
	} {
		eventually(w.t, "the users of the dead to be "+aim.name, func() (map[string]told, bool) {
			users, stale, err := survivor.tell("/presence?limit=1000")
			return users, err == nil && !stale && !slices.ContainsFunc(away, func(p *person) bool {
				u, present := users[p.name]
				return !aim.reached(u.State, present)
			})
		})
		if len(away) > 0 {
			w.report.played(s.name+": "+aim.name, time.Since(killed))
		}
	}
	w.wantSeen(survivor, away, dead)
	for _, n := range sites {
		n.start()
	}
	w.regulars.release(members)
	s.over = time.Now()
}

// wantSeen wants it to be told of people that they were last seen when their instance was killed, or until when it was believed; its
// last renewal may have been on its way.
func (w *world) wantSeen(teller *site, people []*person, dead time.Time) {
	w.t.Helper()
	for _, p := range people {
		users, _, err := teller.tell("/presence?user=" + p.name)
		seen := users[p.name].LastSeen
		if err != nil || w.near && (seen == nil || seen.Before(p.came) || seen.After(dead.Add(worldLease+worldLease/5))) {
			w.t.Errorf("%s was connected from %v to %v, and is told to have been last seen at %v, %v", p.name, p.came, dead, seen, err)
		}
	}
}

// holdSome keeps every other one of those from coming back who have sockets at these sites alone.
func (c *regulars) holdSome(sites []*site) (held []*person, members []*member) {
	var instances []string
	for _, n := range sites {
		instances = append(instances, n.now().Instance)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	others := false
	for _, p := range c.people {
		if slices.ContainsFunc(p.members, func(m *member) bool { return !slices.Contains(instances, m.instance) }) {
			continue
		}
		if others = !others; others {
			held, members = append(held, p), append(members, p.members...)
		}
	}
	for _, m := range members {
		m.held = true
	}
	return held, members
}

// pauseInstance makes an instance hang for a time.
func (s *step) pauseInstance(n *site, d time.Duration) {
	n.freeze()
	began := time.Now()
	lapse(d)
	n.thaw()
	n.wasAlone(time.Since(began))
	s.over = time.Now()
}

// stallClient opens a socket that does not read, and pushes to it until it is closed.
func (s *step) stallClient(n *site) {
	w := s.w
	w.t.Helper()
	stallClient(w.t, n.now().App, "dave")
	body := `{"event":"x","data":"` + strings.Repeat("x", 60_000) + `"}`
	eventually(w.t, "dave to be closed", func() (answer, bool) {
		got, _, err := w.sites[0].call("POST", "/push/dave?wait=written&timeout=10ms", body)
		return got, err == nil && got.Status == http.StatusOK && got.Body["state"] != "online"
	})
	s.over = time.Now()
}

// replaceInstance stops an instance politely, and starts another.
func (s *step) replaceInstance(n *site) {
	s.w.t.Helper()
	n.leave()
	n.start()
	s.over = time.Now()
}

// partition does something to the links of sites for a time.
func (s *step) partition(how func(*site), d time.Duration, sites ...*site) {
	s.w.t.Helper()
	s.away = len(sites) == len(s.w.sites)
	began := time.Now()
	for _, n := range sites {
		how(n)
	}
	lapse(d)
	for _, n := range sites {
		n.healLink()
		if !s.away {
			n.wasAlone(time.Since(began))
		}
	}
	s.over = time.Now()
}

func (s *step) delayLinks(by, d time.Duration) {
	s.w.t.Helper()
	for _, n := range s.w.sites {
		n.delayLink(by)
	}
	lapse(d)
	for _, n := range s.w.sites {
		n.healLink()
	}
	s.over = time.Now()
}

// redis runs a command, past all links. It is tried again if the connection was lost, as after a restart of Redis.
func (w *world) redis(words ...string) rueidis.RedisResult {
	w.t.Helper()
	result := eventually(w.t, "Redis to answer "+words[0], func() (rueidis.RedisResult, bool) {
		result := w.direct.Do(context.Background(), w.direct.B().Arbitrary(words...).Build())
		return result, result.NonRedisError() == nil
	})
	if err := result.Error(); err != nil && !rueidis.IsRedisNil(err) {
		w.t.Fatalf("%s: %v", words[0], err)
	}
	return result
}

func (s *step) flushScripts() {
	s.w.redis("SCRIPT", "FLUSH")
	s.over = time.Now()
}

// emptyRedis takes everything that Redis holds.
func (s *step) emptyRedis() {
	s.lossy = true
	s.w.redis("FLUSHALL")
	s.over = time.Now()
}

// killRedis kills the server and starts it again, empty, after a time.
func (s *step) killRedis(d time.Duration) {
	s.lossy, s.away, s.discard = true, true, true
	s.w.server.Kill()
	lapse(d)
	s.w.server.Restart()
	s.over = time.Now()
}

// pauseRedis makes the server hang for a time.
func (s *step) pauseRedis(d time.Duration) {
	s.away = true
	s.w.server.Pause()
	lapse(d)
	s.w.server.Resume()
	s.over = time.Now()
}

// killSubscriptions closes the connections on which instances listen; of a Redis that is not ours, only those that came with us.
func (s *step) killSubscriptions() {
	s.discard = true
	for _, id := range s.w.subscribers() {
		if !slices.Contains(s.w.strangers, id) {
			s.w.redis("CLIENT", "KILL", "ID", id)
		}
	}
	s.over = time.Now()
	s.wantListening()
}

// wantListening waits until every instance listens, as far as Redis knows, and notes how long it took.
func (s *step) wantListening() {
	w := s.w
	w.t.Helper()
	for _, n := range w.serving() {
		eventually(w.t, "the instance to listen", func() (int64, bool) {
			heard, err := w.redis("PUBSUB", "NUMSUB", w.prefix+"{0}:to:"+n.now().Instance).ToArray()
			if err != nil || len(heard) != 2 {
				return 0, false
			}
			listeners, _ := heard[1].AsInt64()
			return listeners, listeners > 0
		})
	}
	w.report.played(s.name+": all listen again", time.Since(s.over))
}

// subscribers are the ids of Redis' clients that subscribe.
func (w *world) subscribers() (ids []string) {
	w.t.Helper()
	list, _ := w.redis("CLIENT", "LIST", "TYPE", "pubsub").ToString()
	for _, word := range strings.Fields(list) {
		if id, ok := strings.CutPrefix(word, "id="); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// overflowSubscription stalls what one instance listens to until Redis has enough of it and closes the connection.
func (s *step) overflowSubscription(n *site) {
	w := s.w
	w.t.Helper()
	s.discard = true
	w.redis("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 0 0")
	n.narrowLink(50)
	unknown := []byte{0x80, 0x80, 0x40, 99} // 1 MB follows; an envelope of a kind that no version knows
	junk := rueidis.BinaryString(append(unknown, make([]byte, 1<<20-1)...))
	for listens := true; listens; {
		receivers, _ := w.redis("PUBLISH", w.prefix+"{0}:to:"+n.now().Instance, junk).AsInt64()
		listens = receivers > 0
	}
	s.over = time.Now()
	s.wantListening() // although the link is as narrow as before
	n.healLink()
	s.over = time.Now()
}
