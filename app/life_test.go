package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

func TestInstance_ToldToStopSendsItsClientsOnAndExitsCleanly(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	leaving, staying := startProcess(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	var clients []*socket
	for range 50 {
		clients = append(clients, connect(t, leaving.App, "alice"))
	}
	clients = append(clients, connect(t, leaving.App, ""))
	leaving.signal(syscall.SIGTERM)
	for _, s := range clients {
		frames := s.wantClose(websocket.CloseServiceRestart)
		var data struct{ Reconnect *int }
		last := frames[len(frames)-1]
		if err := json.Unmarshal(last.Data, &data); err != nil || last.Event != "rollcall:goaway" ||
			data.Reconnect == nil {
			t.Errorf("the last frame is %s %s", last.Event, last.Data)
		}
	}
	leaving.wantExit(0)
	if got := ask(t, staying, "GET", "/instances", ""); !strings.Contains(got.text,
		`"sockets":0,"users":0,"state":"left"`) {
		t.Errorf("instances: %s", got.text)
	}
	// the lease was ended: it does not take the lease's time
	wantState(t, staying, "alice", "reconnecting", 0)
	back := connect(t, staying, "alice")
	push(t, staying, "alice", `{"event":"x"}`, "online", 1)
	back.wantFrame("x", "null")
	entries, err := redis.Do(redis.Client(), "XRANGE", "rollcall:1:{0}:log", "-", "+").AsXRange()
	if err != nil || len(entries) != 1 || entries[0].FieldValues["state"] != "online" {
		t.Errorf("log: %v, %v; want one entry, online", entries, err)
	}
}

func TestInstance_ThatDrainsIsNotReadyAndTakesNoNewSockets(t *testing.T) {
	t.Parallel()
	a := startProcess(t, "--drain=1m")
	if got := ask(t, a.App, "GET", "/readyz", ""); got.Status != 200 {
		t.Errorf("readyz: %d %s", got.Status, got.text)
	}
	stubborn := deafClient(t, a.App) // does not answer the close frame, so the drain goes on
	a.signal(syscall.SIGTERM)
	got := redistest.Eventually(t, "readyz to say draining", func() (answer, bool) {
		got := ask(t, a.App, "GET", "/readyz", "")
		return got, got.Status == 503
	})
	wantProblem(t, got, 503, "not_ready")
	if !strings.Contains(got.text, `"reasons":["draining"]`) {
		t.Error(got.text)
	}
	wantProblem(t, ask(t, a.App, "GET", "/ws?token="+token(t, "bob"), ""), 503, "draining")
	if got := ask(t, a.App, "GET", "/healthz", ""); got.Status != 200 {
		t.Errorf("healthz: %d %s", got.Status, got.text)
	}
	redistest.Eventually(t, "all to see that it drains", func() (string, bool) {
		got := ask(t, a.App, "GET", "/instances", "")
		return got.text, strings.Contains(got.text, `"state":"draining"`)
	})
	stubborn.Close()
	a.wantExit(0)
}

// deafClient opens a socket of alice that never reads after the handshake.
func deafClient(t *testing.T, a *App) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws?token="+token(t, "alice"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestInstance_StopsAlthoughAClientNeverAnswers(t *testing.T) {
	t.Parallel()
	a := startProcess(t, "--drain=1s")
	deafClient(t, a.App)
	a.signal(syscall.SIGTERM)
	a.wantExit(0)
}

func TestPresence_UsersOfACrashedInstanceAreReconnectingThenOfflineThenSwept(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	flags := []string{"--redis-url=" + redis.URL(), "--lease=1s", "--grace=1s"}
	a, b := startProcess(t, flags...), startApp(t, flags...)
	connect(t, a.App, "alice")
	connect(t, b, "bob")
	wantState(t, b, "alice", "online", 1)
	a.killInstance()
	wantState(t, b, "alice", "reconnecting", 0)
	got := wantState(t, b, "alice", "offline", 0)
	if got["since"] != nil || got["lastSeen"] == nil {
		t.Errorf("offline: %v", got)
	}
	redistest.Eventually(t, "only bob and his instance to be left", func() (answer, bool) {
		got := ask(t, b, "GET", "/instances", "")
		return got, len(got.Body["instances"].([]any)) == 1 && slices.Equal(listed(t, b, 10), []string{"bob"})
	})
	redistest.Eventually(t, "the sweep, after which alice counts no more", func() (answer, bool) {
		got := ask(t, b, "GET", "/presence/count", "")
		return got, got.Body["present"] == 1.0 && got.Body["stale"] == false
	})
}

func TestDevMode_InProcessRedisCanBeJoined(t *testing.T) {
	t.Parallel()
	first := startApp(t)
	second := startApp(t, "--redis-url="+first.RedisURL)
	here, there := connect(t, first, "alice"), connect(t, second, "alice")
	push(t, second, "alice", `{"event":"x"}`, "online", 2)
	here.wantFrame("x", "null")
	there.wantFrame("x", "null")
	wantState(t, first, "alice", "online", 2)
	here.send(`{"event":"events"}`)
	there.wantFrame("events", "1")
}

func TestDevMode_WhatMakeRunPrintsWorksWhenPasted(t *testing.T) {
	t.Parallel()
	path := mustBinary(t)
	a := startMadeUp(t)
	var out strings.Builder
	printDev(&out, a)
	alice := dial(t, "ws://"+a.Addr+"/ws?token="+tokenOf(t, a, "alice"), nil)
	var curl, join string
	for _, line := range strings.Split(out.String(), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "curl "):
			curl = line
		case strings.HasPrefix(line, "ROLLCALL_ADDR="):
			join = line
		}
	}
	if got, err := exec.Command("sh", "-c", curl).Output(); err != nil ||
		!strings.Contains(string(got), `"instances":1`) {
		t.Errorf("%s: %s, %v", curl, got, err)
	}
	alice.wantFrame("hello", `{"from":"curl"}`)
	second := exec.Command("sh", "-c", strings.Replace(join, "make run", "exec "+path, 1))
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Process.Kill(); _ = second.Wait() }()
	key := http.Header{"Authorization": {a.config.APIKeys[0]}}
	list := redistest.Eventually(t, "two live instances", func() ([]any, bool) {
		list, _ := ask(t, a, "GET", "/instances", "", key).Body["instances"].([]any)
		return list, len(list) == 2
	})
	for _, one := range list { // their pages have what they need, also the second's, which was given it
		addr := one.(map[string]any)["addr"].(string)
		got := redistest.Eventually(t, "the key of "+addr, func() (answer, bool) {
			got, err := http.Get("http://" + addr + "/dev/key")
			if err != nil {
				return answer{}, false
			}
			defer got.Body.Close()
			text, _ := io.ReadAll(got.Body)
			return answer{Status: got.StatusCode, text: string(text)}, true
		})
		if !strings.Contains(got.text, a.config.APIKeys[0]) {
			t.Errorf("%s: %d %s", addr, got.Status, got.text)
		}
	}
}

func TestDevMode_PrintsNoSecretThatWasGiven(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	var out strings.Builder
	printDev(&out, a)
	if strings.Contains(out.String(), testSecret) || strings.Contains(out.String(), testKey) {
		t.Error(out.String())
	}
	out.Reset()
	const password = "sesame"
	given := *a
	given.config, given.RedisURL = &Config{RedisURL: "redis://:" + password + "@example:6379"},
		"redis://:"+password+"@example:6379"
	if printDev(&out, &given); strings.Contains(out.String(), password) {
		t.Error(out.String())
	}
}

func TestInstance_FirstLineOfItsLogSaysWhereItListens(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--maxmemory-policy", "allkeys-lru") // which is worth a warning
	startProcess(t, "--redis-url="+redis.URL())                      // reads that line
}

func TestInstance_StopsAlthoughAHandlerWorks(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan error, 1)
	release := make(chan struct{})
	a, err := tryAppWith(t, map[string]sockets.Handler{
		"waits": func(ctx context.Context, _ sockets.Request, _ *sockets.Responder) error {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil
		},
		"sleeps": func(context.Context, sockets.Request, *sockets.Responder) error {
			begun <- struct{}{}
			<-release
			return nil
		},
	}, "--drain=100ms")
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"waits", "sleeps"} {
		connect(t, a, "alice").send(fmt.Sprintf(`{"event":%q}`, event))
		<-begun
	}
	a.Close()
	close(release) // only now: Close must not have waited for it
	if err := <-ended; err != context.Canceled {
		t.Errorf("the handler that waits was told %v", err)
	}
}
