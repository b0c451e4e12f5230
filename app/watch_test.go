package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// step is what is watched from before a fault until everything is right again.
type step struct {
	w    *world
	name string
	over time.Time // when the fault ended, and mending could begin

	// what the fault makes of Redis
	lossy   bool // it lost what it held
	away    bool // no instance could reach it for a while
	discard bool // it threw away messages that it had taken for instances

	stop  context.CancelFunc
	loops sync.WaitGroup

	mu sync.Mutex
	// mu guards the following
	promises []promise
	glimpses []glimpse
}

// promise is a push that was answered with instances ≥ 1.
type promise struct {
	id        string
	user      string
	instances int
	written   int // sockets it was written to, if that was asked for
}

// glimpse is a user who was told not to be online.
type glimpse struct {
	teller      *site
	user, state string
}

// begin begins to watch: readers, pushers and askers work until stopWatching.
func (w *world) begin(name string) *step {
	ctx, stop := context.WithCancel(context.Background())
	s := &step{w: w, name: name, over: time.Now(), stop: stop}
	w.regulars.begin()
	for _, n := range w.sites {
		n.wasAlone(-n.aloneFor())
	}
	for _, n := range w.sites {
		s.loops.Go(func() { s.push(ctx, n) })
	}
	s.loops.Go(func() { s.readAll(ctx) })
	s.loops.Go(func() { s.talk(ctx) })
	w.t.Cleanup(s.stopWatching)
	return s
}

func (s *step) stopWatching() {
	s.stop()
	s.loops.Wait()
}

// begin forgets what happened before this step.
func (c *regulars) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.people {
		p.gap, p.left = 0, false
	}
	for _, m := range c.members {
		m.breaks, m.goaways, m.heard, m.order, m.asked, m.answered = 0, 0, map[string]int{}, nil, 0, 0
	}
}

// each calls f again and again until the context ends. The pace leaves room for others on the machine.
func each(ctx context.Context, pace time.Duration, f func(turn int)) {
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for turn := 1; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			f(turn)
		}
	}
}

// push pushes numbered events to random people through one site.
func (s *step) push(ctx context.Context, n *site) {
	each(ctx, 5*time.Millisecond, func(turn int) {
		if !n.serves() {
			return
		}
		user := s.w.regulars.people[rand.IntN(len(s.w.regulars.people))].name
		body := fmt.Sprintf(`{"event":"numbered","data":{"from":%q,"n":%d}}`, n.now().Instance, turn)
		wait := []string{"routed", "written"}[turn%2]
		got, ok, err := n.call("POST", "/push/"+url.PathEscape(user)+"?wait="+wait, body)
		switch {
		case !ok:
		case err != nil || got.Status != http.StatusOK && got.Status != http.StatusServiceUnavailable:
			s.w.t.Errorf("%s: push: %d %s %v", s.name, got.Status, got.text, err)
		case got.Status == http.StatusOK && got.Body["partial"] != true && got.Body["instances"].(float64) > 0:
			s.promise(user, []byte(got.text))
		}
	})
}

// promise notes what the answer to a push says.
func (s *step) promise(user string, text []byte) {
	var said struct {
		ID        string
		Instances int
		Sockets   struct{ Written int }
	}
	if err := json.Unmarshal(text, &said); err != nil {
		s.w.t.Errorf("%s: push: %s", s.name, text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promises = append(s.promises, promise{said.ID, user, said.Instances, said.Sockets.Written})
}

// readAll asks random sites about everybody.
func (s *step) readAll(ctx context.Context) {
	var query []string
	for _, p := range s.w.regulars.people {
		query = append(query, "user="+url.QueryEscape(p.name))
	}
	path := "/presence?" + strings.Join(query, "&")
	each(ctx, 10*time.Millisecond, func(int) {
		sites := s.w.serving()
		if len(sites) == 0 {
			return
		}
		teller := sites[rand.IntN(len(sites))]
		got, ok, err := teller.call("GET", path, "")
		if !ok {
			return
		}
		var page struct {
			Users []told
			Stale bool
		}
		if err == nil {
			err = json.Unmarshal([]byte(got.text), &page)
		}
		if err != nil || got.Status != http.StatusOK {
			s.w.t.Errorf("%s: read: %d %s %v", s.name, got.Status, got.text, err)
		}
		for _, u := range page.Users {
			if u.State == "online" || page.Stale && u.State == "unknown" {
				continue
			}
			s.mu.Lock()
			s.glimpses = append(s.glimpses, glimpse{teller, u.User, u.State})
			s.mu.Unlock()
		}
	})
}

// talk asks, through random sockets, what the gateway answers.
func (s *step) talk(ctx context.Context) {
	c := s.w.regulars
	each(ctx, 20*time.Millisecond, func(int) {
		m := c.members[rand.IntN(len(c.members))]
		c.mu.Lock()
		conn := m.conn
		if m.instance == "" {
			conn = nil
		}
		c.mu.Unlock()
		if conn != nil && conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"events","ref":"chaos"}`)) == nil {
			c.mu.Lock()
			m.asked++
			c.mu.Unlock()
		}
	})
}

// settle waits until everything is right again, and judges what happened meanwhile.
func (s *step) settle() {
	w := s.w
	w.t.Helper()
	exact := max(0, w.wantExact().Sub(s.over))
	s.stopWatching()
	for _, n := range w.serving() {
		w.wantHeard(n)
	}
	w.report.played(s.name, exact)
	w.wantCleanAudit()
	w.regulars.await("every question to be answered", func() bool {
		return !slices.ContainsFunc(w.regulars.members, func(m *member) bool { return m.breaks == 0 && m.answered < m.asked })
	})
	s.judge()
}

// wantHeard pushes to everybody through a site until the answer says that all their instances took it, and wants all to get it. What
// was pushed there before has come by then, or never will.
func (w *world) wantHeard(n *site) {
	w.t.Helper()
	truth, _ := w.regulars.truth()
	users := slices.Sorted(maps.Keys(truth))
	body, _ := json.Marshal(map[string]any{"users": users, "event": "fence"})
	got := eventually(w.t, "a push to reach every instance", func() (answer, bool) {
		got, _, err := n.call("POST", "/push", string(body))
		results, _ := got.Body["results"].([]any)
		right := err == nil && len(results) == len(users)
		for i := 0; right && i < len(users); i++ {
			right = results[i].(map[string]any)["instances"] == float64(len(truth[users[i]]))
		}
		return got, right
	})
	id := got.Body["id"].(string)
	w.regulars.await("everybody to hear what was pushed", func() bool {
		return !slices.ContainsFunc(w.regulars.members, func(m *member) bool { return m.instance != "" && m.heard[id] == 0 })
	})
}

// wantCleanAudit wants every instance to find its own map in Redis, with nothing missing and nothing else.
func (w *world) wantCleanAudit() {
	w.t.Helper()
	sites := w.serving()
	eventually(w.t, "an audit of the living instances alone", func() (string, bool) {
		got, _, err := sites[rand.IntN(len(sites))].call("GET", "/audit", "")
		var audits struct {
			Instances []struct {
				Instance                        string
				Users, Entries, Missing, Ghosts int
			}
			Unanswered []string
		}
		if err == nil {
			err = json.Unmarshal([]byte(got.text), &audits)
		}
		if err != nil || len(audits.Unanswered) > 0 || len(audits.Instances) != len(sites) {
			return fmt.Sprintf("%s %v", got.text, err), false // a dead one may not have lapsed yet
		}
		for _, a := range audits.Instances {
			if a.Missing+a.Ghosts > 0 {
				w.t.Errorf("audit: %s", got.text)
			}
		}
		return "", true
	})
}
