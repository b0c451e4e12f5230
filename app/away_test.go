package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

// awayRedis has the ways in which all instances can lose Redis, and how each ends.
var awayRedis = map[string]struct {
	leave, back func(c *cluster)
	empty       bool // it comes back without what it held
}{
	"down": {func(c *cluster) { c.server.Kill() }, func(c *cluster) { c.server.Restart() }, true},
	"hung": {func(c *cluster) { c.server.Pause() }, func(c *cluster) { c.server.Resume() }, false},
	"unreachable": {func(c *cluster) { c.eachNode((*node).silenceLink) }, func(c *cluster) {
		c.eachNode((*node).healLink)
	}, false},
}

func (c *cluster) eachNode(do func(*node)) {
	for _, n := range c.nodes {
		do(n)
	}
}

func TestInstance_KeepsSocketsAndServesLocallyWithoutRedis(t *testing.T) {
	for name, redis := range awayRedis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 0)
			here, there := c.nodes[0].instance().App, c.nodes[1].instance().App
			alice, bob := connect(t, here, "alice"), connect(t, there, "bob")
			wantState(t, here, "bob", "online", 1)
			redis.leave(c)

			redistest.Eventually(t, "reads to be stale", func() (answer, bool) {
				got := ask(t, here, "GET", "/presence/count", "")
				return got, got.Status == http.StatusOK && got.Body["stale"] == true &&
					got.Body["present"] == 1.0
			})
			c.wantReadsWithoutRedis(here)
			push(t, here, "alice", `{"event":"x"}`, "unknown", 1)
			alice.wantFrame("x", "null")
			wantProblem(t, ask(t, here, "POST", "/push/bob", `{"event":"x"}`), http.StatusServiceUnavailable,
				"redis_unreachable")
			alice.send(`{"event":"events","ref":"1"}`)
			for _, n := range []string{"1", "2", "3"} {
				alice.wantFrame("events", n)
			}
			alice.wantError("not_mirrored", "1")
			cathy := dialRaw(t, here, "cathy")
			wantReachable(t, cathy.next(), false)
			push(t, here, "cathy", `{"event":"y"}`, "unknown", 1)
			cathy.wantFrame("y", "null")
			c.wantCallsToEnd(here)

			redis.back(c)
			cathy.wantFrame("rollcall:reachable", "{}")
			for user, s := range map[string]*socket{"alice": alice, "bob": bob, "cathy": cathy} {
				redistest.Eventually(t, "a push from afar to reach "+user, func() (answer, bool) {
					got := ask(t, c.nodes[2].instance().App, "POST", "/push/"+user, `{"event":"z"}`)
					return got, got.Body["state"] == "online" && got.Body["instances"] == 1.0
				})
				s.awaitFrame("z", "null") // what was answered with redis_unreachable may have come before
				wantState(t, c.nodes[2].instance().App, user, "online", 1)
			}
			c.wantCleanAudit()
			c.wantLogAfter(redis.empty)
		})
	}
}

// wantReadsWithoutRedis checks that every kind of read answers what the instance knows by itself: alice is
// online.
func (c *cluster) wantReadsWithoutRedis(a *App) {
	var reads sync.WaitGroup // each waits until it is sure
	for path, want := range map[string]string{
		"/presence?user=alice&user=bob": "200 stale online unknown",
		"/presence":                     "200 stale online",
		"/presence/bob":                 "200 stale unknown",
		"/audit":                        "503 redis_unreachable",
		"/healthz":                      "200",
	} {
		reads.Go(func() {
			if got, err := c.ask(a, "GET", path, ""); err != nil || summaryOf(got) != want {
				c.t.Errorf("GET %s: %d %s, %v, want %s", path, got.Status, got.text, err, want)
			}
		})
	}
	reads.Wait()
}

// summaryOf shortens an answer to what matters in these tests.
func summaryOf(got answer) string {
	words := []string{strconv.Itoa(got.Status)}
	if code, ok := got.Body["code"]; ok {
		words = append(words, code.(string))
	}
	if got.Body["stale"] == true {
		words = append(words, "stale")
	}
	users, ok := got.Body["users"].([]any)
	if !ok {
		users = []any{got.Body}
	}
	for _, u := range users {
		if state, ok := u.(map[string]any)["state"]; ok {
			words = append(words, state.(string))
		}
	}
	return strings.Join(words, " ")
}

func wantReachable(t *testing.T, welcome frame, want bool) {
	t.Helper()
	var data struct{ Reachable *bool }
	if err := json.Unmarshal(welcome.Data, &data); err != nil || data.Reachable == nil ||
		*data.Reachable != want {
		t.Errorf("welcome %s, want reachable %v", welcome.Data, want)
	}
}

// wantCallsToEnd makes more calls at once than a connection to Redis takes, and waits for an answer to each.
func (c *cluster) wantCallsToEnd(a *App) {
	var calls sync.WaitGroup
	for range 750 {
		for call, want := range map[string]string{"GET /presence/bob": "200 stale unknown",
			"POST /push/bob": "503 redis_unreachable"} {
			calls.Go(func() {
				method, path, _ := strings.Cut(call, " ")
				got, err := c.ask(a, method, path, `{"event":"x"}`)
				// the gate closes new connections whose heads are slow to come, if there are so many
				for pause := time.Millisecond; err != nil && pause < redistest.Patience; pause *= 2 {
					<-time.After(pause)
					got, err = c.ask(a, method, path, `{"event":"x"}`)
				}
				if err != nil || summaryOf(got) != want {
					c.t.Errorf("%s, among many: %d %s, %v", call, got.Status, got.text, err)
				}
			})
		}
	}
	calls.Wait()
}

// wantLogAfter checks the log of changes. It has one entry for each of alice, bob and cathy, or only cathy's
// if Redis was emptied before she connected.
func (c *cluster) wantLogAfter(emptied bool) {
	c.t.Helper()
	changes := c.newChanges()
	want := map[string]int{"alice": 1, "bob": 1, "cathy": 1}
	if emptied {
		want = map[string]int{"cathy": 1}
	}
	for user := range changes {
		if len(changes[user]) != want[user] {
			c.t.Errorf("the log has %v, want %v", changes, want)
		}
	}
	if len(changes) != len(want) {
		c.t.Errorf("the log has %v, want %v", changes, want)
	}
}
