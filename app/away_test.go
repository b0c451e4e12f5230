package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// awayRedis are the ways in which Redis can be away from all instances, each with the way back.
var awayRedis = map[string]struct {
	leave, back func(w *world)
	empty       bool // it comes back without what it held
}{
	"down":        {func(w *world) { w.server.Kill() }, func(w *world) { w.server.Restart() }, true},
	"hung":        {func(w *world) { w.server.Pause() }, func(w *world) { w.server.Resume() }, false},
	"unreachable": {func(w *world) { w.eachSite((*site).silenceLink) }, func(w *world) { w.eachSite((*site).healLink) }, false},
}

func (w *world) eachSite(do func(*site)) {
	for _, n := range w.sites {
		do(n)
	}
}

func TestWithoutRedisSocketsStayAndWhatOneInstanceCanDoGoesOn(t *testing.T) {
	for name, redis := range awayRedis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startWorld(t, 0)
			here, there := w.sites[0].now().App, w.sites[1].now().App
			alice, bob := connect(t, here, "alice"), connect(t, there, "bob")
			wantState(t, here, "bob", "online", 1)
			redis.leave(w)

			eventually(t, "reads to be stale", func() (answer, bool) {
				got := ask(t, here, "GET", "/presence/count", "")
				return got, got.Status == http.StatusOK && got.Body["stale"] == true && got.Body["present"] == 1.0
			})
			w.wantReadsWithoutRedis(here)
			push(t, here, "alice", `{"event":"x"}`, "unknown", 1)
			alice.wantFrame("x", "null")
			wantProblem(t, ask(t, here, "POST", "/push/bob", `{"event":"x"}`), http.StatusServiceUnavailable, "redis_unreachable")
			alice.send(`{"event":"events","ref":"1"}`)
			for _, n := range []string{"1", "2", "3"} {
				alice.wantFrame("events", n)
			}
			alice.wantError("not_mirrored", "1")
			cathy := dialRaw(t, here, "cathy")
			wantReachable(t, cathy.next(), false)
			push(t, here, "cathy", `{"event":"y"}`, "unknown", 1)
			cathy.wantFrame("y", "null")
			w.wantCallsToEnd(here)

			redis.back(w)
			cathy.wantFrame("rollcall:reachable", "{}")
			for user, c := range map[string]*client{"alice": alice, "bob": bob, "cathy": cathy} {
				eventually(t, "a push from afar to reach "+user, func() (answer, bool) {
					got := ask(t, w.sites[2].now().App, "POST", "/push/"+user, `{"event":"z"}`)
					return got, got.Body["state"] == "online" && got.Body["instances"] == 1.0
				})
				c.awaitFrame("z", "null") // what was answered with redis_unreachable may have come before
				wantState(t, w.sites[2].now().App, user, "online", 1)
			}
			w.wantCleanAudit()
			w.wantLogAfter(redis.empty)
		})
	}
}

// wantReadsWithoutRedis wants every way to read to answer with what the instance knows: that alice is there.
func (w *world) wantReadsWithoutRedis(a *App) {
	var reads sync.WaitGroup // each waits until it is sure
	for path, want := range map[string]string{
		"/presence?user=alice&user=bob": "200 stale online unknown",
		"/presence":                     "200 stale online",
		"/presence/bob":                 "200 stale unknown",
		"/audit":                        "503 redis_unreachable",
		"/healthz":                      "200",
	} {
		reads.Go(func() {
			if got, err := w.ask(a, "GET", path, ""); err != nil || summaryOf(got) != want {
				w.t.Errorf("GET %s: %d %s, %v, want %s", path, got.Status, got.text, err, want)
			}
		})
	}
	reads.Wait()
}

// summaryOf says what matters in an answer.
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
	if err := json.Unmarshal(welcome.Data, &data); err != nil || data.Reachable == nil || *data.Reachable != want {
		t.Errorf("welcome %s, want reachable %v", welcome.Data, want)
	}
}

// wantCallsToEnd makes more calls at once than a connection to Redis takes, and wants an answer to each.
func (w *world) wantCallsToEnd(a *App) {
	var calls sync.WaitGroup
	for range 750 {
		for call, want := range map[string]string{"GET /presence/bob": "200 stale unknown", "POST /push/bob": "503 redis_unreachable"} {
			calls.Go(func() {
				method, path, _ := strings.Cut(call, " ")
				got, err := w.ask(a, method, path, `{"event":"x"}`)
				for giveUp := time.Now().Add(patience); err != nil && time.Now().Before(giveUp); {
					// the gate closes those of so many new connections whose heads are slow to come
					got, err = w.ask(a, method, path, `{"event":"x"}`)
				}
				if err != nil || summaryOf(got) != want {
					w.t.Errorf("%s, among many: %d %s, %v", call, got.Status, got.text, err)
				}
			})
		}
	}
	calls.Wait()
}

// wantLogAfter wants the log to hold that alice, bob and cathy came, once, or what of it came after Redis was emptied: that cathy did.
func (w *world) wantLogAfter(emptied bool) {
	w.t.Helper()
	changes := w.newChanges()
	want := map[string]int{"alice": 1, "bob": 1, "cathy": 1}
	if emptied {
		want = map[string]int{"cathy": 1}
	}
	for user := range changes {
		if len(changes[user]) != want[user] {
			w.t.Errorf("the log has %v, want %v", changes, want)
		}
	}
	if len(changes) != len(want) {
		w.t.Errorf("the log has %v, want %v", changes, want)
	}
}
