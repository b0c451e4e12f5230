package main

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"testing"

	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

func TestDispatcher_SendsEveryAnswerToAllSocketsOfTheUserInOrderAndOnce(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	asker := connect(t, apps[0], "alice")
	others := []*socket{connect(t, apps[0], "alice"), connect(t, apps[1], "alice"),
		connect(t, apps[2], "alice")}
	bob := connect(t, apps[0], "bob")
	const questions = 20
	for n := range questions {
		asker.send(`{"event":"events","data":{"test":true},"ref":"` + strconv.Itoa(n) + `"}`)
	}
	for n := range questions {
		for data := 1; data <= 3; data++ {
			if f := asker.wantFrame("events", strconv.Itoa(data)); f.Ref != strconv.Itoa(n) {
				t.Fatalf("ref %q, want %d", f.Ref, n)
			}
		}
	}
	for _, s := range others {
		for range questions {
			for data := 1; data <= 3; data++ {
				if f := s.wantFrame("events", strconv.Itoa(data)); f.Ref != "" {
					t.Fatalf("a sibling got the ref %q", f.Ref)
				}
			}
		}
	}
	ask(t, apps[0], "POST", "/emit/all", `{"event":"last"}`)
	for _, s := range append(others, asker, bob) {
		s.wantFrame("last", "null")
	}
}

func TestDispatcher_AnswersAnAnonymousSocketAlone(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	asker, other := connect(t, a, ""), connect(t, a, "")
	asker.send(`{"event":"events"}`)
	for data := 1; data <= 3; data++ {
		asker.wantFrame("events", strconv.Itoa(data))
	}
	ask(t, a, "POST", "/emit/all", `{"event":"last"}`)
	other.wantFrame("last", "null")
}

// withHandlers starts an instance with handlers for more events.
func withHandlers(t *testing.T, more map[string]sockets.Handler, flags ...string) *App {
	t.Helper()
	events := sockets.Builtin()
	maps.Copy(events, more)
	a, err := tryAppWith(t, events, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestDispatcher_LetsAHandlerReplyOnlyManyTimesOrNotAtAll(t *testing.T) {
	t.Parallel()
	a := withHandlers(t, map[string]sockets.Handler{
		"secret": func(_ context.Context, _ sockets.Request, a *sockets.Responder) error {
			return a.ReplyOnly("psst")
		},
		"name": func(_ context.Context, q sockets.Request, a *sockets.Responder) error {
			return a.Send(q.User)
		},
		"many": func(_ context.Context, _ sockets.Request, a *sockets.Responder) error {
			for n := range 500 {
				if err := a.Send(n); err != nil {
					return err
				}
			}
			return nil
		},
		"silent": func(context.Context, sockets.Request, *sockets.Responder) error { return nil },
		"add": func(_ context.Context, q sockets.Request, a *sockets.Responder) error {
			var numbers []int
			if err := q.Decode(&numbers); err != nil {
				return err
			}
			return a.Send(numbers[0] + numbers[1])
		},
	})
	asker, other := connect(t, a, "alice"), connect(t, a, "alice")
	for _, event := range []string{"secret", "silent", "name", "many"} {
		asker.send(`{"event":"` + event + `"}`)
	}
	asker.wantFrame("secret", `"psst"`)
	for _, s := range []*socket{asker, other} {
		s.wantFrame("name", `"alice"`)
		for n := range 500 {
			s.wantFrame("many", strconv.Itoa(n))
		}
	}
	asker.send(`{"event":"add","data":[2,3],"ref":"a"}`)
	asker.wantFrame("add", "5")
	other.wantFrame("add", "5")
	asker.send(`{"event":"add","data":"2","ref":"b"}`)
	asker.wantError("bad_data", "b")
}

func TestDispatcher_LosesOneAnswerToAHandlerThatPanicsOrFails(t *testing.T) {
	t.Parallel()
	a := withHandlers(t, map[string]sockets.Handler{
		"panic": func(context.Context, sockets.Request, *sockets.Responder) error {
			panic("the password is hunter2")
		},
		"fail": func(context.Context, sockets.Request, *sockets.Responder) error {
			return errors.New("the password is hunter2")
		},
		"break": func(_ context.Context, _ sockets.Request, a *sockets.Responder) error {
			if err := a.Send(1); err != nil {
				return err
			}
			return a.Send(make(chan int)) // can't be JSON
		},
	})
	alice := connect(t, a, "alice")
	for _, event := range []string{"panic", "fail"} {
		alice.send(`{"event":"` + event + `","ref":"1"}`)
		f := alice.next()
		if f.Event != "rollcall:error" || f.Ref != "1" || strings.Contains(string(f.Data), "hunter2") {
			t.Errorf("%s: got %s %s", event, f.Event, f.Data)
		}
	}
	alice.send(`{"event":"break","ref":"2"}`)
	alice.wantFrame("break", "1")
	alice.wantError("failed", "2")
	alice.send(`{"event":"events"}`)
	alice.wantFrame("events", "1")
}

func TestDispatcher_GoesOnAfterAMalformedPayload(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	b := startApp(t, "--redis-url="+redis.URL())
	alice := connect(t, a, "alice")
	client := redis.Client()
	channel := "rollcall:1:{0}:to:" + a.Instance
	for _, payload := range []string{"", "{}", "heartbea", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x05hello", "\x80", strings.Repeat("\x01", 1000)} {
		for _, to := range []string{channel, "rollcall:1:{0}:all", "rollcall:1:{0}:authenticated"} {
			redis.Do(client, "PUBLISH", to, payload)
		}
	}
	push(t, b, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
	ask(t, b, "POST", "/emit/all", `{"event":"y"}`)
	alice.wantFrame("y", "null")
}

func TestDispatcher_ReportsAnAnswerThatCouldNotBeMirrored(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	asker, sibling := connect(t, a, "alice"), connect(t, a, "alice")
	redis.Kill()
	asker.send(`{"event":"events","ref":"1"}`)
	for data := 1; data <= 3; data++ {
		asker.wantFrame("events", strconv.Itoa(data))
		sibling.wantFrame("events", strconv.Itoa(data))
	}
	asker.wantError("not_mirrored", "1")
}

func TestPush_APublishErrorIsNotSwallowed(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	alice := connect(t, a, "alice")
	redis.Kill()
	got := push(t, a, "alice", `{"event":"x"}`, "unknown", 1)
	if got.Body["partial"] != true {
		t.Errorf("push: %s, want it to be partial", got.text)
	}
	alice.wantFrame("x", "null")
	wantProblem(t, ask(t, a, "POST", "/push/bob", `{"event":"x"}`), 503, "redis_unreachable")
	many := ask(t, a, "POST", "/push", `{"event":"y","users":["alice","bob"]}`)
	want := `[{"user":"alice","state":"unknown","instances":1,"partial":true},
		{"user":"bob","state":"unknown","instances":0,"error":"redis_unreachable"}]`
	if !sameJSON(string(marshal(t, many.Body["results"])), want) {
		t.Errorf("push to many: %s", many.text)
	}
	alice.wantFrame("y", "null")
	if got := ask(t, a, "POST", "/emit/all", `{"event":"z"}`); got.Body["partial"] != true ||
		got.Body["instances"] != 1.0 {
		t.Errorf("emit: %s", got.text)
	}
	alice.wantFrame("z", "null")
	wantProblem(t, ask(t, startLonely(t, redis), "POST", "/emit/all", `{"event":"z"}`), 503,
		"redis_unreachable")
}

// startLonely starts an instance without sockets, and takes its Redis away.
func startLonely(t *testing.T, redis *redistest.Server) *App {
	t.Helper()
	redis.Restart()
	a := startApp(t, "--redis-url="+redis.URL())
	redis.Kill()
	return a
}

func TestPresence_ReadsWithoutRedisSayThatTheyAreStale(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	connect(t, a, "alice")
	redis.Kill()
	for path, want := range map[string]string{
		"/presence/alice":             `"state":"online"`,
		"/presence/bob":               `"state":"unknown"`,
		"/presence?user=alice&user=b": `"state":"unknown"`,
		"/presence":                   `"user":"alice"`,
		"/presence/count":             `"present":1`,
	} {
		if got := ask(t, a, "GET", path, ""); got.Status != 200 || got.Body["stale"] != true ||
			!strings.Contains(got.text, want) {
			t.Errorf("%s: %d %s, want it stale with %s", path, got.Status, got.text, want)
		}
	}
	wantProblem(t, ask(t, a, "GET", "/instances", ""), 503, "redis_unreachable")
}

func TestSocket_ThatOpensWithoutRedisIsToldWhenItIsReachable(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	redis.Kill()
	alice := dialRaw(t, a, "alice")
	if f := alice.next(); f.Event != "rollcall:welcome" ||
		!strings.Contains(string(f.Data), `"reachable":false`) {
		t.Fatalf("got %s %s", f.Event, f.Data)
	}
	redis.Restart()
	alice.wantFrame("rollcall:reachable", "{}")
	b := startApp(t, "--redis-url="+redis.URL())
	push(t, b, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
}
