package main

import (
	"net/http"
	"testing"

	"rollcall/lua/redistest"
)

func keyed(key string) http.Header { return http.Header{"Idempotency-Key": {key}} }

func TestARequestWithAKeyIsDoneOnceOnWhicheverInstanceItComesAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		a, b := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
		alice := connect(t, a, "alice")
		for _, path := range []string{"/push/alice?wait=written", "/push", "/emit/all"} {
			body := `{"event":"x","data":1}`
			if path == "/push" {
				body = `{"event":"x","data":1,"users":["alice"]}`
			}
			first := ask(t, a, "POST", path, body, keyed(path))
			alice.wantFrame("x", "1")
			for _, app := range []*App{a, b} {
				again := ask(t, app, "POST", path, body, keyed(path))
				if again.Status != 200 || !sameJSON(again.text, first.text) || again.Header.Get("Idempotent-Replayed") != "true" {
					t.Errorf("%s again: %d %s, want %s", path, again.Status, again.text, first.text)
				}
				wantProblem(t, ask(t, app, "POST", path, `{"event":"other"}`, keyed(path)), 422, "key_reused")
			}
		}
		ask(t, a, "POST", "/push/alice", `{"event":"last"}`, keyed("another"))
		alice.wantFrame("last", "null") // and nothing came twice
	})
}

func TestARequestThatWasRefusedMayComeAgainWithItsKey(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	wantProblem(t, ask(t, a, "POST", "/push/alice?wait=forever", `{"event":"x"}`, keyed("k")), 400, "bad_wait")
	if got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k")); got.Status != 200 {
		t.Errorf("%d %s", got.Status, got.text)
	}
	for _, bad := range []http.Header{keyed(""), {"Idempotency-Key": {"a", "b"}}} {
		wantProblem(t, ask(t, a, "POST", "/push/alice", `{"event":"x"}`, bad), 400, "bad_idempotency_key")
	}
	wantProblem(t, ask(t, a, "POST", "/push", `{}`, keyed("s"), http.Header{"Content-Type": {"application/x-ndjson"}}), 400, "bad_idempotency_key")
}

func TestARequestWhoseFirstIsUnderWayIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice") // confirms nothing
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- ask(t, a, "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`, keyed("k")) }()
	}
	wantProblem(t, <-answers, http.StatusConflict, "under_way") // whichever came second is answered at once
	if got := <-answers; got.Status != 200 {
		t.Errorf("%d %s", got.Status, got.text)
	}
}
