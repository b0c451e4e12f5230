package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

// wantDeadline waits until an instance's lease ends so many ms after a moment, and returns when it ends.
func wantDeadline(t *testing.T, redis *redistest.Server, instance string, after int64) (deadline int64) {
	t.Helper()
	return redistest.Eventually(t, "the lease of "+instance+" to be renewed", func() (int64, bool) {
		lease, err := redis.Ask("HGET", "rollcall:1:{0}:leases", instance+".1").ToString()
		if err != nil {
			t.Fatalf("the lease of %s under its first token: %v", instance, err)
		}
		_, _ = fmt.Sscan(lease, &deadline)
		return deadline, deadline > after
	})
}

func TestInstance_KeepsPresenceAndPushesGoingOnAFullRedisAndNamesIt(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.SmallRedis...)
	flags := []string{"--redis-url=" + redis.URL(), "--lease=3s", "--grace=3s"}
	a, b, dies := startApp(t, flags...), startApp(t, flags...), startProcess(t, flags...)
	alice, bob := connect(t, a, "alice"), connect(t, b, "bob")
	connect(t, dies.App, "cathy")
	wantReady := func(app *App, warning string) {
		t.Helper()
		redistest.Eventually(t, "readyz to say "+warning, func() (answer, bool) {
			got := ask(t, app, "GET", "/readyz", "")
			return got, got.Status == http.StatusOK && strings.Contains(got.text, warning) &&
				!strings.Contains(got.text, "out of reach")
		})
	}
	redis.Fill()
	wantReady(a, "Redis is full")
	wantReady(b, "Redis is full")
	if got := ask(t, a, "GET", "/metrics", ""); !strings.Contains(got.text,
		"\nrollcall_redis{state=\"full\"} 1\n") {
		t.Error("no metric says that Redis is full")
	}

	const leases = 3 * 3000 // ms: three lease times
	wantDeadline(t, redis, a.Instance, wantDeadline(t, redis, a.Instance, 0)+leases)
	push(t, a, "bob", `{"event":"x"}`, "online", 1)
	bob.wantFrame("x", "null")
	push(t, b, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
	late := connect(t, b, "dave") // who comes
	push(t, a, "dave", `{"event":"x"}`, "online", 1)
	late.wantFrame("x", "null")
	bob.leave()
	wantState(t, a, "bob", "offline", 0)
	dies.killInstance()
	wantState(t, a, "cathy", "offline", 0)
	redistest.Eventually(t, "cathy to be swept", func() (bool, bool) {
		still, _ := redis.Ask("HEXISTS", "rollcall:1:{0}:owners", "cathy").AsBool()
		return still, !still
	})
	got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k"))
	wantProblem(t, got, http.StatusServiceUnavailable, "redis_full")
	if detail, _ := got.Body["detail"].(string); !strings.Contains(detail, "nothing was sent") {
		t.Errorf("it says %q", detail)
	}

	redis.MakeRoom()
	wantReady(a, `{"status":"ready"}`)
	wantReady(b, `{"status":"ready"}`)
	if got := ask(t, b, "POST", "/push/alice", `{"event":"x"}`, keyed("k")); got.Status != http.StatusOK {
		t.Errorf("with room again: %d %s", got.Status, got.text)
	}
	alice.wantFrame("x", "null")
	for _, app := range []*App{a, b} {
		if got := ask(t, app, "GET", "/audit", ""); strings.Contains(got.text, `"missing":1`) ||
			strings.Contains(got.text, `"ghosts":1`) {
			t.Errorf("audit: %s", got.text)
		}
		if n := metric(t, app, "rollcall_audit_differences_total"); n != "0" {
			t.Errorf("%s differences were found", n)
		}
	}
	want := []string{"alice online", "bob online", "cathy online", "dave online", "bob offline",
		"cathy offline"}
	if got := redis.Changes(redis.Client(), "rollcall:1:{0}:log"); strings.Join(got,
		", ") != strings.Join(want, ", ") {
		t.Errorf("log: %q, want %q", got, want)
	}
}

// metric returns the value of a metric without labels.
func metric(t *testing.T, a *App, name string) string {
	t.Helper()
	for line := range strings.Lines(ask(t, a, "GET", "/metrics", "").text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}
