package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

// lockedLog keeps what is logged.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lockedLog) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return true
		}
	}
	return false
}

func TestLog_DebugTracesAPushByItsIDFromHTTPToSockets(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	var trace lockedLog
	start := func() *App {
		var c commands
		if _, err := newParser(&c).Parse([]string{"--addr=127.0.0.1:0", "--redis-url=" + redis.URL(),
			"--jwt-secret=" + testSecret, "--api-keys=" + testKey}); err != nil {
			t.Fatal(err)
		}
		a, err := Start(t.Context(), &c.Config, sockets.Builtin(),
			slog.New(slog.NewJSONHandler(&trace, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		return a
	}
	a, b := start(), start()
	alice := connect(t, b, "alice")
	got := ask(t, a, "POST", "/push/alice?wait=written", `{"event":"x"}`)
	id := got.Body["id"].(string)
	if !trace.has(`"msg":"push"`, id, `"user":"alice"`) || !trace.has(`"msg":"written"`, id, alice.id) {
		t.Error(trace.text.String())
	}
}

func TestPprof_IsServedOnItsOwnAddressOnly(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--pprof-addr=127.0.0.1:0")
	profiles := &App{Addr: a.PprofAddr}
	if got := ask(t, profiles, "GET", "/debug/pprof/goroutine?debug=1", ""); got.Status != http.StatusOK {
		t.Errorf("%d %s", got.Status, got.text)
	}
	if got := ask(t, profiles, "GET", "/debug/pprof/cmdline", ""); strings.Contains(got.text, os.Args[0]) {
		t.Errorf("the command line, in which secrets may be: %s", got.text)
	}
	if got := askHost(t, profiles, "/debug/pprof/goroutine",
		"evil.example:6060"); got.Status != http.StatusForbidden {
		t.Errorf("a name that somebody made point here: %d", got.Status)
	}
	wantProblem(t, ask(t, a, "GET", "/debug/pprof/goroutine", ""), 404, "not_found")
}

func TestDashboard_ShowsOnlyMetricsThatExist(t *testing.T) {
	t.Parallel()
	dashboard, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	a := startApp(t)
	connect(t, a, "bob").leave()
	alice := connect(t, a, "alice")
	alice.send(`{"event":"events"}`)
	alice.wantFrame("events", "1")
	ask(t, a, "POST", "/push/alice?wait=written", `{"event":"x"}`)
	ask(t, a, "GET", "/ws?token=garbage", "", http.Header{"Authorization": nil})
	wantMetrics(t, a, `rollcall_client_events_total{handler="events",outcome="ok"} 1`,
		`rollcall_sockets_closed_total{by="client",code="1000"} 1`)
	metrics := ask(t, a, "GET", "/metrics", "").text
	names := regexp.MustCompile(`\b(rollcall|go|process)_[a-z_]+`).FindAllString(string(dashboard), -1)
	for _, name := range names {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("the dashboard shows %s, which /metrics does not have", name)
		}
	}
	if !json.Valid(dashboard) || len(names) < 20 {
		t.Errorf("the dashboard shows only %v", names)
	}
}
