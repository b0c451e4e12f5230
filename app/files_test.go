package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

func TestGate_SilentConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	p := startBinary(t, withFiles(t, 64))
	for name, head := range map[string]string{
		"nothing":                "",
		"a head without its end": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
		"a request and no other": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a head without its body": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Length: 1000\r\n\r\n",
		"a push without key or body": "POST /push/alice HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Length: 1000\r\n\r\n",
	} {
		flood(t, p.App, 150, head)
		if status := wantAnswers(t, p.App, "/healthz"); status != http.StatusOK {
			t.Errorf("%s: /healthz answers %d", name, status)
		}
		if status := ask(t, p.App, "POST", "/push/alice", `{"event":"x"}`).Status; status != http.StatusOK {
			t.Errorf("%s: a push is answered with %d", name, status)
		}
	}
}

func TestGate_ACallerWithoutAKeyIsAnsweredBeforeItsBody(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /push/alice HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusUnauthorized || !response.Close {
		t.Errorf("%d, close %v", response.StatusCode, response.Close)
	}
}

func TestInstance_ThatIsFullSaysSo(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-sockets=1")
	alice := connect(t, a, "alice")
	got := ask(t, a, "GET", "/ws", "", http.Header{"Authorization": nil, "Connection": {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}})
	wantProblem(t, got, http.StatusServiceUnavailable, "full")
	if got.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	if got := ask(t, a, "GET", "/metrics", ""); !strings.Contains(got.text, "rollcall_sockets_full_total 1") {
		t.Error("it is not counted")
	}
	alice.leave()
	redistest.Eventually(t, "room for bob", func() (error, bool) {
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws", nil)
		if err == nil {
			conn.Close()
		}
		return err, err == nil
	})
}

func TestConfig_RefusesMoreSocketsThanFilesAllow(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(withFiles(t, 64), "--max-sockets=17").CombinedOutput()
	if err == nil || !strings.Contains(string(out),
		"--max-sockets (ROLLCALL_MAX_SOCKETS) is 17: want 0 (as many as may be) to 16") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestGate_AHeadHas16KiBAndSomeLinesAtMost(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	head := func(bytes int) http.Header { return http.Header{"X-Long": {strings.Repeat("x", bytes)}} }
	if got := ask(t, a, "GET", "/presence/count", "", head(15<<10)); got.Status != http.StatusOK {
		t.Errorf("15 KiB: %d", got.Status)
	}
	many := http.Header{}
	for n := range maxHeadLines + 20 {
		many.Set(fmt.Sprint("X-", n), "")
	}
	if got := ask(t, a, "GET", "/presence/count", "", many); got.Status != http.StatusBadRequest {
		t.Errorf("%d lines: %d", len(many), got.Status)
	}
	lines := strings.NewReader(strings.Repeat("\n", 4000)) // those of a body are not counted
	if response, err := http.Post("http://"+a.Addr+"/push", "application/json", lines); err != nil ||
		response.Body.Close() != nil {
		t.Errorf("a body of many lines: %v", err)
	}
	if got := ask(t, a, "GET", "/presence/count", "",
		head(24<<10)); got.Status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("24 KiB: %d", got.Status)
	}
}

// withFiles returns a program that starts the binary with so many files at most.
func withFiles(t *testing.T, files int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rollcall")
	script := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", files, mustBinary(t))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// flood opens connections. Each sends something and then waits.
func flood(t *testing.T, a *App, count int, text string) {
	t.Helper()
	for range count {
		conn, err := net.Dial("tcp", a.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, text) // it may be closed already, for others
	}
}

const anonymousHandshake = "GET /ws HTTP/1.1\r\nHost: localhost\r\n" +
	"Connection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// wantAnswers checks that an instance answers on a new connection.
func wantAnswers(t *testing.T, a *App, path string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: redistest.Patience}
	response, err := client.Get("http://" + a.Addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestInstance_WithoutFilesKeepsItsLeaseAndAnswersProbes(t *testing.T) {
	t.Parallel()
	const lease = 5 * time.Second
	redis := redistest.Start(t)
	flags := []string{"--redis-url=" + redis.URL(), "--lease=" + lease.String()}
	p, other := startBinary(t, withFiles(t, 64), flags...), startApp(t, flags...)
	alice := connect(t, p.App, "alice")
	flood(t, p.App, 150, anonymousHandshake)
	redis.Ask("CLIENT", "KILL", "TYPE", "pubsub")
	redis.Ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

	for killed := time.Now(); time.Since(killed) < 2*lease; {
		wantAnswers(t, p.App, "/readyz")
		if status := wantAnswers(t, p.App, "/healthz"); status != http.StatusOK {
			t.Fatalf("/healthz answers %d", status)
		}
		if got := ask(t, other, "GET", "/presence/alice", ""); got.Body["stale"] == false &&
			got.Body["state"] != "online" {
			t.Fatalf("alice is %v", got.Body)
		}
	}
	redistest.Eventually(t, "a push to reach alice", func() (string, bool) {
		got := ask(t, other, "POST", "/push/alice?wait=written", `{"event":"x"}`)
		return got.text, strings.Contains(got.text, `"written":1`)
	})
	alice.wantFrame("x", "null")
	if status := wantAnswers(t, p.App, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz answers %d", status)
	}
}

func TestGate_CountsNoLinesOfABodyWhereverTheReadsAreCut(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	body := `{"users":["alice"],` + strings.Repeat("\n", 2*maxHeadLines) + `"event":"x"}`
	for head := 4096 - 1; head < 4096+4; head++ { // net/http reads so many bytes at a time
		text := fmt.Sprintf("POST /push HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\n"+
			"Connection: close\r\nContent-Length: %d\r\nX-Long: ", a.Addr, testKey, len(body))
		text += strings.Repeat("x", head-len(text)-4) + "\r\n\r\n" + body
		conn, err := net.Dial("tcp", a.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if answer, _, _ := strings.Cut(string(got), "\r\n"); answer != "HTTP/1.1 200 OK" {
			t.Errorf("a head of %d bytes: %q, %v", head, answer, err)
		}
	}
}
