package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
	for _, bad := range []http.Header{keyed(""), keyed(strings.Repeat("k", 256)), {"Idempotency-Key": {"a", "b"}}} {
		wantProblem(t, ask(t, a, "POST", "/push/alice", `{"event":"x"}`, bad), 400, "bad_idempotency_key")
	}
	wantProblem(t, ask(t, a, "POST", "/push", `{}`, keyed("s"), http.Header{"Content-Type": {"application/x-ndjson"}}), 400, "bad_idempotency_key")
}

func TestAKeyIsForOneRequestHoweverMuchTheOtherLooksLikeIt(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	longest := strings.Repeat("k", 255)
	first := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed(longest))
	for path, body := range map[string]string{
		"/push/alice?wait=written": `{"event":"x"}`, "/push/bob": `{"event":"x"}`, "/emit/all": `{"event":"x"}`, "/push/alice": `{"event":"x","data":1}`,
	} {
		wantProblem(t, ask(t, a, "POST", path, body, keyed(longest)), 422, "key_reused")
	}
	if again := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed(longest)); again.text != first.text {
		t.Errorf("got %s, want %s", again.text, first.text)
	}
	alice.wantFrame("x", "null")
	push(t, a, "alice", `{"event":"last"}`, "online", 1)
	alice.wantFrame("last", "null") // and nothing came twice
}

func TestRepeatsAtTheSameMomentOnTwoInstancesAreDoneOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		apps := []*App{startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())}
		alice := connect(t, apps[0], "alice")
		const rounds = 50
		for n := range rounds {
			body, key := fmt.Sprintf(`{"event":"n","data":%d}`, n), keyed(fmt.Sprint(n))
			answers := make(chan answer, len(apps))
			for _, a := range apps {
				go func() { answers <- ask(t, a, "POST", "/push/alice?wait=written", body, key) }() // or the next, taken by another, may pass it
			}
			ids := map[any]bool{}
			for range apps {
				switch got := <-answers; got.Status {
				case http.StatusOK:
					ids[got.Body["id"]] = true
				default:
					wantProblem(t, got, http.StatusConflict, "under_way")
				}
			}
			if len(ids) != 1 {
				t.Errorf("round %d: answers with the ids %v, want one", n, ids)
			}
		}
		for n := range rounds {
			alice.wantFrame("n", fmt.Sprint(n)) // each once
		}
	})
}

func TestARequestWithAKeyIsRefusedWithoutRedisAndMayComeAgain(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	alice := connect(t, a, "alice")
	redis.Pause()
	got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k")) // alice is here, but it may have been sent before
	wantProblem(t, got, http.StatusServiceUnavailable, "redis_unreachable")
	if detail, _ := got.Body["detail"].(string); !strings.Contains(detail, "nothing was sent") {
		t.Errorf("it says %q", detail)
	}
	redis.Resume()
	eventually(t, "the repeat to be done", func() (answer, bool) {
		got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k"))
		return got, got.Status == http.StatusOK
	})
	alice.wantFrame("x", "null")
	push(t, a, "alice", `{"event":"last"}`, "online", 1)
	alice.wantFrame("last", "null")
}

func TestARequestWhoseFirstIsUnderWayIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice") // confirms nothing
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- ask(t, a, "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`, keyed("k")) }()
	}
	second := <-answers // whichever it is, it is answered at once
	wantProblem(t, second, http.StatusConflict, "under_way")
	if second.Header.Get("Retry-After") != "1" {
		t.Error("it is not told when to ask again")
	}
	if got := <-answers; got.Status != 200 {
		t.Errorf("%d %s", got.Status, got.text)
	}
}

func TestWhatIsRememberedDoesNotDependOnHowLongTheFirstCallerWaits(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	for n := range 20 { // for the instance notices in its own time that the caller is gone
		path, key := "/push/alice?wait=acked&timeout=5s", fmt.Sprint(n)
		ctx, giveUp := context.WithCancel(t.Context())
		request, err := requestTo(ctx, a, "POST", path, `{"event":"x"}`)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Idempotency-Key", key)
		gone := make(chan error, 1)
		go func() {
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				response.Body.Close()
			}
			gone <- err
		}()
		id := alice.wantFrame("x", "null").ID
		giveUp()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatalf("answered before: %v", err)
		}
		wantProblem(t, ask(t, a, "POST", path, `{"event":"x"}`, keyed(key)), http.StatusConflict, "under_way")
		alice.send(fmt.Sprintf(`{"event":"rollcall:ack","data":{"id":%q}}`, id))
		again := eventually(t, "the outcome", func() (answer, bool) {
			got := ask(t, a, "POST", path, `{"event":"x"}`, keyed(key))
			return got, got.Status != http.StatusConflict
		})
		wantSockets(t, again, sockets(1, 1, 0, 0, 0))
	}
}
