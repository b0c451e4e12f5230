package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// killInstances kills instances. Of those who have sockets there alone, every other one does not come back; how long it takes until
// they are believed to be online no more, and are swept, is noted. Then there are new instances.
func (s *step) killInstances(sites ...*site) {
	s.w.t.Helper()
	s.bury(s.crash(sites))
}

// dead are instances that were killed, and those who do not come back.
type dead struct {
	sites   []*site
	people  []*person
	members []*member
	killed  time.Time // the first
	over    time.Time // the last
}

func (s *step) crash(sites []*site) *dead {
	d := &dead{sites: sites}
	d.people, d.members = s.w.regulars.holdSome(sites)
	d.killed = time.Now()
	for _, n := range sites {
		n.kill()
	}
	d.over = time.Now()
	return d
}

func (s *step) bury(d *dead) {
	w := s.w
	w.t.Helper()
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
			return users, err == nil && !stale && !slices.ContainsFunc(d.people, func(p *person) bool {
				u, present := users[p.name]
				return !aim.reached(u.State, present)
			})
		})
		if len(d.people) > 0 {
			w.report.played(s.name+": "+aim.name, time.Since(d.killed))
		}
	}
	w.wantSeen(survivor, d)
	for _, n := range d.sites {
		n.start()
	}
	w.regulars.release(d.members)
	s.over = time.Now()
}

// wantSeen wants it to be told of people that they were last seen when their instance was killed, or until when it was believed; its
// last renewal may have been on its way.
func (w *world) wantSeen(teller *site, d *dead) {
	w.t.Helper()
	for _, p := range d.people {
		users, _, err := teller.tell("/presence?user=" + p.name)
		seen := users[p.name].LastSeen
		if err != nil || w.near && (seen == nil || seen.Before(p.came) || seen.After(d.over.Add(worldLease+worldLease/5))) {
			w.t.Errorf("%s was connected from %v to %v, and is told to have been last seen at %v, %v", p.name, p.came, d.over, seen, err)
		}
	}
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

// killWithoutRedis kills an instance while Redis hangs.
func (s *step) killWithoutRedis(n *site, d time.Duration) {
	s.w.t.Helper()
	s.away = true
	s.w.server.Pause()
	dead := s.crash([]*site{n})
	lapse(d)
	s.w.server.Resume()
	dead.over = time.Now() // Redis does only now what the instance had asked for before, such as to renew its lease
	s.bury(dead)
}

// replaceWithoutRedis stops an instance politely while Redis is out of reach of all, and starts another when it is not.
func (s *step) replaceWithoutRedis(n *site, d time.Duration) {
	s.w.t.Helper()
	s.away = true
	s.w.eachSite((*site).cutLink)
	n.leave()
	lapse(d)
	s.w.eachSite((*site).healLink)
	n.start()
	s.over = time.Now()
}

// emptyRedisBehind empties Redis while an instance hangs.
func (s *step) emptyRedisBehind(n *site, d time.Duration) {
	s.w.t.Helper()
	n.freeze()
	began := time.Now()
	s.emptyRedis()
	lapse(d)
	n.thaw()
	n.wasAlone(max(time.Since(began), worldGrace)) // nobody but Redis knew who is there, and Redis has forgotten
	s.over = time.Now()
}

// stallClient opens a socket that does not read, and pushes to it until its instance has closed it. That its user is not told to be
// online says nothing: a lease may have lapsed for a moment.
func (s *step) stallClient(n *site) {
	w := s.w
	w.t.Helper()
	before := n.tooSlow()
	stallClient(w.t, n.now().App, "dave")
	body := `{"event":"x","data":"` + strings.Repeat("x", 60_000) + `"}`
	eventually(w.t, "dave to be closed", func() (string, bool) {
		got, _, _ := w.sites[0].call("POST", "/push/dave?wait=written&timeout=10ms", body)
		return got.text, n.tooSlow() != before
	})
	s.over = time.Now()
}

// tooSlow is the instance's count of clients that were too slow, as /metrics tells it.
func (n *site) tooSlow() string {
	n.w.t.Helper()
	return eventually(n.w.t, "the instance to count slow clients", func() (string, bool) {
		got, _, _ := n.call("GET", "/metrics", "")
		_, after, found := strings.Cut(got.text, `rollcall_drops_total{reason="socket_too_slow"} `)
		count, _, _ := strings.Cut(after, "\n")
		return count, found
	})
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
