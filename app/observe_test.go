package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

// wantMetrics waits until /metrics has all these lines. What ends a request is counted after its answer.
func wantMetrics(t *testing.T, a *App, lines ...string) {
	t.Helper()
	for _, line := range lines {
		wantMetric(t, a, line)
	}
}

func TestMetrics_CountRequestsByRouteAndStatus(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice")
	for _, user := range []string{"alice", "bob", "a%2Fb"} {
		ask(t, a, "POST", "/push/"+user, `{"event":"x"}`)
	}
	ask(t, a, "POST", "/push/alice", `{}`)
	ask(t, a, "POST", "/presence", `{"users":["alice"]}`)
	ask(t, a, "GET", "/presence/alice", "", http.Header{"Authorization": nil})
	for _, path := range []string{"/nothing", "/wp-login.php", "/push/a/b/c"} {
		ask(t, a, "GET", path, "")
	}
	ask(t, a, "BREW", "/presence/alice", "")
	ask(t, a, "BREW", "/coffee", "")
	s := openStream(t, a, "")
	s.lines.Close()
	s.wantEnd("complete", 0)
	wantMetrics(t, a,
		`rollcall_http_requests_total{method="POST",route="/push/:user",status="200"} 3`,
		`rollcall_http_requests_total{method="POST",route="/push/:user",status="400"} 1`,
		`rollcall_http_request_seconds_count{method="POST",route="/push/:user"} 4`,
		`rollcall_http_requests_total{method="POST",route="/presence",status="200"} 1`,
		`rollcall_http_requests_total{method="GET",route="/presence/:user",status="401"} 1`,
		`rollcall_http_requests_total{method="GET",route="/ws",status="101"} 1`,
		`rollcall_http_requests_total{method="POST",route="/push",status="200"} 1`,
		`rollcall_http_requests_total{method="other",route="/presence/:user",status="405"} 1`,
		`rollcall_http_requests_total{method="other",route="none",status="404"} 3`,
	)
	metrics := ask(t, a, "GET", "/metrics", "").text
	for _, chosen := range []string{
		"BREW", "nothing", "wp-login", "coffee", "alice",
		`rollcall_http_request_seconds_count{method="POST",route="/push"}`,
	} {
		if strings.Contains(metrics, chosen) {
			t.Errorf("the metrics have %s", chosen)
		}
	}
}

func TestMetrics_CountSocketsWhenTheyOpenAndByHowTheyClose(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-message-bytes=1024")
	closeWith := func(code int) {
		s := connect(t, a, "bob")
		frame := websocket.FormatCloseMessage(code, "")
		if err := s.conn.WriteControl(websocket.CloseMessage, frame,
			time.Now().Add(redistest.Patience)); err != nil {
			t.Fatal(err)
		}
	}
	connect(t, a, "alice").leave()
	closeWith(3123)
	closeWith(3999)
	closeWith(4999)
	kicked := connect(t, a, "alice")
	ask(t, a, "DELETE", "/presence/alice", "")
	kicked.wantClose(4003)
	connect(t, a, "alice").drop()
	tooLong := connect(t, a, "alice")
	tooLong.send(strings.Repeat("x", 5000))
	tooLong.wantClose(1009)
	wantMetrics(t, a,
		"rollcall_sockets_opened_total 7",
		`rollcall_sockets_closed_total{by="client",code="1000"} 1`,
		`rollcall_sockets_closed_total{by="client",code="3xxx"} 2`,
		`rollcall_sockets_closed_total{by="client",code="4xxx"} 1`,
		`rollcall_sockets_closed_total{by="server",code="4003"} 1`,
		`rollcall_sockets_closed_total{by="server",code="1009"} 1`,
		`rollcall_sockets_closed_total{by="network",code="1006"} 1`,
	)
}

func TestMetrics_CountRefusedHandshakesByCode(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	try := func(query string, header http.Header) {
		_, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws"+query, header)
		if !errors.Is(err, websocket.ErrBadHandshake) {
			t.Errorf("%s: %v", query, err)
		}
	}
	try("?token=garbage", nil)
	try("?token=garbage", nil)
	try("", http.Header{"Origin": {"https://evil.example"}})
	// of a handshake
	half := http.Header{"Authorization": nil, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	ask(t, a, "GET", "/ws", "", half)
	wantMetrics(t, a,
		`rollcall_handshakes_refused_total{code="bad_token"} 2`,
		`rollcall_handshakes_refused_total{code="bad_origin"} 1`,
		`rollcall_handshakes_refused_total{code="bad_handshake"} 1`,
		`rollcall_http_requests_total{method="GET",route="/ws",status="400"} 1`,
	)
}

func TestMetrics_CountEventsByHandlerAndOutcome(t *testing.T) {
	t.Parallel()
	events := sockets.Builtin()
	broken := errors.New("broken")
	events["fails"] = func(context.Context, sockets.Request, *sockets.Responder) error { return broken }
	events["panics"] = func(context.Context, sockets.Request, *sockets.Responder) error { panic("broken") }
	events["number"] = func(_ context.Context, q sockets.Request, _ *sockets.Responder) error {
		var n int
		return q.Decode(&n)
	}
	a, err := tryAppWith(t, events)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	alice := connect(t, a, "alice")
	for _, event := range []string{"fails", "panics", "number", "number", "gossip", "rollcall:what"} {
		alice.send(fmt.Sprintf(`{"event":%q,"data":"x"}`, event))
		if got := alice.next(); got.Event != "rollcall:error" {
			t.Errorf("%s: %v", event, got)
		}
	}
	alice.send(`{`)
	alice.wantError("bad_json", "")
	alice.send(`{"event":"events"}`)
	alice.wantFrame("events", "1")
	wantMetrics(t, a,
		`rollcall_client_events_total{handler="fails",outcome="failed"} 1`,
		`rollcall_client_events_total{handler="panics",outcome="failed"} 1`,
		`rollcall_client_events_total{handler="number",outcome="refused"} 2`,
		`rollcall_client_events_total{handler="unknown",outcome="refused"} 2`,
		`rollcall_client_events_total{handler="events",outcome="ok"} 1`,
		`rollcall_handler_seconds_count{handler="events"} 1`,
	)
	for _, chosen := range []string{"gossip", "rollcall:what"} {
		if strings.Contains(ask(t, a, "GET", "/metrics", "").text, chosen) {
			t.Errorf("a client has chosen the label %s", chosen)
		}
	}
}

func TestMetrics_ShowTheBuildReadinessAndTheStateOfRedis(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	wantMetrics(t, a, "rollcall_ready 1",
		`rollcall_not_ready{reason="draining"} 0`, `rollcall_not_ready{reason="deaf"} 0`,
		`rollcall_redis{state="reachable"} 1`, `rollcall_redis{state="lease_held"} 1`)
	build := regexp.MustCompile(`\nrollcall_build_info\{go="go1\.[^"]+",version="[^"]+"\} 1\n`)
	if !build.MatchString(ask(t, a, "GET", "/metrics", "").text) {
		t.Error("no build info")
	}
}

func TestMetrics_ShowThatRedisIsAway(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 0)
	n := c.nodes[0]
	n.cutLink()
	wantMetrics(t, n.instance().App, `rollcall_redis{state="reachable"} 0`,
		`rollcall_redis{state="lease_held"} 0`)
	n.healLink()
	wantMetrics(t, n.instance().App, `rollcall_redis{state="reachable"} 1`,
		`rollcall_redis{state="lease_held"} 1`)
}

func TestMetrics_ShowThatAnInstanceDrains(t *testing.T) {
	t.Parallel()
	a, err := tryApp(t, "--drain=1m")
	if err != nil {
		t.Fatal(err)
	}
	// it reads nothing, not even the goaway
	stays, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { a.Close(); close(closed) }()
	wantMetrics(t, a, "rollcall_ready 0", `rollcall_not_ready{reason="draining"} 1`)
	stays.Close()
	<-closed
}

// startLogging starts an instance and keeps its log.
func startLogging(t *testing.T, flags ...string) (*App, *lockedLog) {
	t.Helper()
	var log lockedLog
	a, err := tryAppLogging(t, &log, sockets.Builtin(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, &log
}

func TestLog_ShowsKicks(t *testing.T) {
	t.Parallel()
	a, log := startLogging(t)
	alice, bob := connect(t, a, "alice"), connect(t, a, "bob")
	ask(t, a, "DELETE", "/presence/alice?reason=x", "")
	alice.wantClose(4003)
	ask(t, a, "DELETE", "/sockets/"+bob.id, "")
	bob.wantClose(4003)
	if !log.has("level=INFO", "kicked", "user=alice", "route=/presence/:user", "closed=1",
		"peer=127.0.0.1") ||
		!log.has("kicked", "socket="+bob.id, "route=/sockets/:id", "closed=1") || log.has(testKey) {
		t.Error(log.text.String())
	}
}

func TestLog_ShowsRefusedKeysAndTokensWithoutTheirTextAndNotWithoutEnd(t *testing.T) {
	t.Parallel()
	a, log := startLogging(t)
	const attempts = 200
	for range attempts {
		ask(t, a, "GET", "/ws?token=hunter2", "", http.Header{"Authorization": nil})
	}
	// the flood of tokens does not hide this
	ask(t, a, "GET", "/presence", "", http.Header{"Authorization": {"Bearer hunter2"}})
	if !log.has("level=WARN", "a token was refused", "is not a JWT", "peer=127.0.0.1") ||
		!log.has("level=WARN", "an API key was refused", "route=/presence", "peer=127.0.0.1") ||
		log.has("hunter2") {
		t.Error(log.text.String())
	}
	redistest.Eventually(t, "a line that says how many were left out", func() (int, bool) {
		ask(t, a, "GET", "/ws?token=hunter2", "", http.Header{"Authorization": nil})
		return 0, log.has("a token was refused", "leftOut=")
	})
}

func TestHTTP_EveryAnswerForbidsBrowsersToGuessItsType(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for _, path := range []string{
		"/", "/rollcall.js", "/healthz", "/presence", "/presence/alice", "/metrics", "/nothing",
		"/push/alice", "/ws",
	} {
		got := ask(t, a, "GET", path, "")
		if got.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, got.Status, got.Header)
		}
	}
}

func TestHTTP_TheErrorOfABodyThatBreaksOffNamesNoAddresses(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for body, says := range map[string]string{
		"Content-Length: 100\r\n\r\n{":                   "ended before the end",
		"Transfer-Encoding: chunked\r\n\r\n10\r\n{":      "ended before the end",
		"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n": "malformed",
	} {
		text := rawRequest(t, a, "POST /push/alice", "application/json", body)
		told := strings.Contains(text, `"code":"bad_body"`) && strings.Contains(text, says)
		if !told || strings.Contains(text, "127.0.0.1") {
			t.Errorf("%q: %s", body, text)
		}
	}
}

// rawRequest sends the rest of a request after its first headers, then nothing more, and returns the whole
// answer.
func rawRequest(t *testing.T, a *App, request, contentType, rest string) string {
	t.Helper()
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+
		"Authorization: Bearer %s\r\nContent-Type: %s\r\n%s", request, testKey, contentType, rest)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	return string(text)
}
