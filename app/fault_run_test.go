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

	"rollcall/lua/redistest"
)

// faultRun is what is watched from before a fault until everything is right again.
type faultRun struct {
	cluster    *cluster
	name       string
	faultEnded time.Time // when the fault ended, and recovery could begin

	// what the fault does to Redis
	lostState    bool // it lost what it held
	unreachable  bool // no instance could reach it for a while
	lostMessages bool // it threw away messages to instances that it had accepted

	stop  context.CancelFunc
	loops sync.WaitGroup

	mu sync.Mutex
	// mu guards the following
	pushes []deliveredPush
	reads  []offlineRead
}

// deliveredPush is a push whose answer names at least one instance.
type deliveredPush struct {
	id        string
	user      string
	instances int
	written   int // sockets it was written to, if that was asked for
}

// offlineRead is a user whom an instance did not report as online.
type offlineRead struct {
	node        *node
	user, state string
}

// begin starts to watch: pushes, reads and events of clients go on until stopWatching.
func (c *cluster) begin(name string) *faultRun {
	ctx, stop := context.WithCancel(context.Background())
	run := &faultRun{cluster: c, name: name, faultEnded: time.Now(), stop: stop}
	c.pool.beginRun()
	for _, n := range c.nodes {
		n.addCutOff(-n.cutOffFor())
	}
	for _, n := range c.nodes {
		run.loops.Go(func() { run.push(ctx, n) })
	}
	run.loops.Go(func() { run.readAll(ctx) })
	run.loops.Go(func() { run.sendEvents(ctx) })
	c.t.Cleanup(run.stopWatching)
	return run
}

func (run *faultRun) stopWatching() {
	run.stop()
	run.loops.Wait()
}

// beginRun forgets what clients noted before this run.
func (p *clientPool) beginRun() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		u.gap, u.left = 0, false
	}
	for _, c := range p.clients {
		c.breaks, c.goaways, c.frames, c.order, c.asked, c.answered = 0, 0, map[string]int{}, nil, 0, 0
	}
}

// each calls f again and again until the context ends. Between two calls it leaves the machine to others.
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

// push pushes numbers to random users through one node.
func (run *faultRun) push(ctx context.Context, n *node) {
	each(ctx, 5*time.Millisecond, func(turn int) {
		if !n.serves() {
			return
		}
		user := run.cluster.pool.users[rand.IntN(len(run.cluster.pool.users))].name
		body := fmt.Sprintf(`{"event":"numbered","data":{"from":%q,"n":%d}}`, n.instance().Instance, turn)
		wait := []string{"routed", "written"}[turn%2]
		got, ok, err := n.call("POST", "/push/"+url.PathEscape(user)+"?wait="+wait, body)
		switch {
		case !ok:
		case err != nil || got.Status != http.StatusOK && got.Status != http.StatusServiceUnavailable:
			run.cluster.t.Errorf("%s: push: %d %s %v", run.name, got.Status, got.text, err)
		case got.Status == http.StatusOK && got.Body["partial"] != true &&
			got.Body["instances"].(float64) > 0:
			run.notePush(user, []byte(got.text))
		}
	})
}

// notePush notes what the answer to a push promises.
func (run *faultRun) notePush(user string, text []byte) {
	var said struct {
		ID        string
		Instances int
		Sockets   struct{ Written int }
	}
	if err := json.Unmarshal(text, &said); err != nil {
		run.cluster.t.Errorf("%s: push: %s", run.name, text)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	run.pushes = append(run.pushes, deliveredPush{said.ID, user, said.Instances, said.Sockets.Written})
}

// readAll asks random nodes about all users.
func (run *faultRun) readAll(ctx context.Context) {
	var query []string
	for _, u := range run.cluster.pool.users {
		query = append(query, "user="+url.QueryEscape(u.name))
	}
	path := "/presence?" + strings.Join(query, "&")
	each(ctx, 10*time.Millisecond, func(int) {
		nodes := run.cluster.serving()
		if len(nodes) == 0 {
			return
		}
		node := nodes[rand.IntN(len(nodes))]
		got, ok, err := node.call("GET", path, "")
		if !ok {
			return
		}
		var page struct {
			Users []presenceView
			Stale bool
		}
		if err == nil {
			err = json.Unmarshal([]byte(got.text), &page)
		}
		if err != nil || got.Status != http.StatusOK {
			run.cluster.t.Errorf("%s: read: %d %s %v", run.name, got.Status, got.text, err)
		}
		for _, view := range page.Users {
			if view.State == "online" || page.Stale && view.State == "unknown" {
				continue
			}
			run.mu.Lock()
			run.reads = append(run.reads, offlineRead{node, view.User, view.State})
			run.mu.Unlock()
		}
	})
}

// sendEvents sends events through random sockets, and counts them.
func (run *faultRun) sendEvents(ctx context.Context) {
	p := run.cluster.pool
	each(ctx, 20*time.Millisecond, func(int) {
		c := p.clients[rand.IntN(len(p.clients))]
		p.mu.Lock()
		conn := c.conn
		if c.instance == "" {
			conn = nil
		}
		p.mu.Unlock()
		if conn != nil && conn.WriteMessage(websocket.TextMessage,
			[]byte(`{"event":"events","ref":"chaos"}`)) == nil {
			p.mu.Lock()
			c.asked++
			p.mu.Unlock()
		}
	})
}

// finish waits until everything is right again, and verifies what happened meanwhile.
func (run *faultRun) finish() {
	c := run.cluster
	c.t.Helper()
	exact := max(0, c.wantExact().Sub(run.faultEnded))
	run.stopWatching()
	for _, n := range c.serving() {
		c.wantFencePassed(n)
	}
	c.report.played(run.name, exact)
	c.wantCleanAudit()
	c.pool.await("every event to be answered", func() bool {
		return !slices.ContainsFunc(c.pool.clients, func(c *client) bool {
			return c.breaks == 0 && c.answered < c.asked
		})
	})
	run.verify()
}

// wantFencePassed pushes a fence to everybody through a node until the answer says that all their instances
// took it, and waits until all have got it. Whatever was pushed there before has arrived then, or never will.
func (c *cluster) wantFencePassed(n *node) {
	c.t.Helper()
	truth, _ := c.pool.connected()
	users := slices.Sorted(maps.Keys(truth))
	body, _ := json.Marshal(map[string]any{"users": users, "event": "fence"})
	got := redistest.Eventually(c.t, "a push to reach every instance", func() (answer, bool) {
		got, _, err := n.call("POST", "/push", string(body))
		results, _ := got.Body["results"].([]any)
		right := err == nil && len(results) == len(users)
		for i := 0; right && i < len(users); i++ {
			right = results[i].(map[string]any)["instances"] == float64(len(truth[users[i]]))
		}
		return got, right
	})
	id := got.Body["id"].(string)
	c.pool.await("everybody to hear what was pushed", func() bool {
		return !slices.ContainsFunc(c.pool.clients, func(c *client) bool {
			return c.instance != "" && c.frames[id] == 0
		})
	})
}

// wantCleanAudit waits for an audit by all living instances, and checks that none differs from Redis.
func (c *cluster) wantCleanAudit() {
	c.t.Helper()
	nodes := c.serving()
	redistest.Eventually(c.t, "an audit of the living instances alone", func() (string, bool) {
		got, _, err := nodes[rand.IntN(len(nodes))].call("GET", "/audit", "")
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
		if err != nil || len(audits.Unanswered) > 0 || len(audits.Instances) != len(nodes) {
			return fmt.Sprintf("%s %v", got.text, err), false // a dead one may not have lapsed yet
		}
		for _, a := range audits.Instances {
			if a.Missing+a.Ghosts > 0 {
				c.t.Errorf("audit: %s", got.text)
			}
		}
		return "", true
	})
}
