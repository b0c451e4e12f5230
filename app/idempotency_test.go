package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

func keyed(key string) http.Header { return http.Header{"Idempotency-Key": {key}} }

// askSurely asks again while the answer says only that Redis is slow, or that a first request is under way.
// On a busy machine that happens, and such an answer promises nothing.
func askSurely(t *testing.T, a *App, path, body string, header http.Header) answer {
	t.Helper()
	return redistest.Eventually(t, "an answer to "+path, func() (answer, bool) {
		got := ask(t, a, "POST", path, body, header)
		return got, !promisesNothing(got)
	})
}

func promisesNothing(got answer) bool {
	code := got.Body["code"]
	return got.Status == http.StatusServiceUnavailable && code == "redis_unreachable" ||
		got.Status == http.StatusConflict && code == "under_way"
}

// countUntilLast pushes a last frame, and counts what came before it by its data.
func (s *socket) countUntilLast(a *App) map[string]int {
	s.t.Helper()
	redistest.Eventually(s.t, "the last push", func() (answer, bool) {
		got := ask(s.t, a, "POST", "/push/alice", `{"event":"last"}`)
		return got, got.Status == http.StatusOK && got.Body["instances"] == 1.0
	})
	came := map[string]int{}
	for f := s.next(); f.Event != "last"; f = s.next() {
		came[string(f.Data)]++
	}
	return came
}

func TestIdempotency_DoesARequestOnceOnWhicheverInstanceItArrives(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		a, b := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
		alice := connect(t, a, "alice")
		tries := 0
		done := map[string]bool{} // by what was sent: it was said to be done
		for _, path := range []string{"/push/alice?wait=written&timeout=5s", "/push", "/emit/all"} {
			var body, key string
			first := redistest.Eventually(t, "an answer to "+path, func() (answer, bool) {
				tries++ // one that Redis was too slow for may have got through, and then its key is used up
				body, key = fmt.Sprintf(`{"event":"x","data":%d}`, tries), fmt.Sprint(path, tries)
				if path == "/push" {
					body = fmt.Sprintf(`{"event":"x","data":%d,"users":["alice"]}`, tries)
				}
				got := ask(t, a, "POST", path, body, keyed(key))
				return got, !promisesNothing(got)
			})
			if first.Status != http.StatusOK {
				t.Fatalf("%s: %d %s", path, first.Status, first.text)
			}
			done[fmt.Sprint(tries)] = true
			for _, app := range []*App{a, b} {
				again := askSurely(t, app, path, body, keyed(key))
				replayed := again.Header.Get("Idempotent-Replayed") == "true"
				if again.Status != 200 || !sameJSON(again.text, first.text) || !replayed {
					t.Errorf("%s again: %d %s, want %s", path, again.Status, again.text, first.text)
				}
				wantProblem(t, askSurely(t, app, path, `{"event":"other"}`, keyed(key)), 422, "key_reused")
			}
		}
		came := alice.countUntilLast(a)
		for n := range tries {
			data := fmt.Sprint(n + 1)
			if came[data] > 1 || done[data] && came[data] != 1 {
				t.Errorf("%s came %d times, and was said to be done: %v", data, came[data], done[data])
			}
			delete(came, data)
		}
		if len(came) > 0 {
			t.Errorf("there came also %v", came)
		}
	})
}

func TestIdempotency_LetsARefusedRequestComeAgainWithItsKey(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	refused := ask(t, a, "POST", "/push/alice?wait=forever", `{"event":"x"}`, keyed("k"))
	wantProblem(t, refused, 400, "bad_wait")
	if got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k")); got.Status != 200 {
		t.Errorf("%d %s", got.Status, got.text)
	}
	bad := []http.Header{keyed(""), keyed(strings.Repeat("k", 256)), {"Idempotency-Key": {"a", "b"}}}
	for _, header := range bad {
		wantProblem(t, ask(t, a, "POST", "/push/alice", `{"event":"x"}`, header), 400, "bad_idempotency_key")
	}
	stream := http.Header{"Content-Type": {"application/x-ndjson"}}
	wantProblem(t, ask(t, a, "POST", "/push", `{}`, keyed("s"), stream), 400, "bad_idempotency_key")
}

func TestIdempotency_RefusesAKeyForAnotherRequestHoweverSimilar(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	longest := strings.Repeat("k", 255)
	first := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed(longest))
	for path, body := range map[string]string{
		"/push/alice?wait=written": `{"event":"x"}`,
		"/push/bob":                `{"event":"x"}`,
		"/emit/all":                `{"event":"x"}`,
		"/push/alice":              `{"event":"x","data":1}`,
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

func TestIdempotency_DoesSimultaneousRepeatsOnTwoInstancesOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		apps := []*App{startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())}
		alice := connect(t, apps[0], "alice")
		const rounds = 50
		said := map[string]int{} // by what was sent: how many ids the answers had
		for begun := time.Now(); len(said) < rounds; {
			n := len(said)
			body, key := fmt.Sprintf(`{"event":"n","data":%d}`, n), keyed(fmt.Sprint(n))
			answers := make(chan answer, len(apps))
			for _, a := range apps {
				go func() { answers <- ask(t, a, "POST", "/push/alice?wait=written&timeout=5s", body, key) }()
			}
			ids := map[any]bool{}
			for range apps {
				switch got := <-answers; {
				case got.Status == http.StatusOK:
					ids[got.Body["id"]] = true
				case !promisesNothing(got):
					t.Fatalf("round %d: %d %s", n, got.Status, got.text)
				}
			}
			said[fmt.Sprint(n)] = len(ids) // none, if Redis was too slow for the one that was first
			if len(ids) > 1 {
				t.Errorf("round %d: answers with the ids %v, want one", n, ids)
			}
			if time.Since(begun) > redistest.Patience {
				t.Fatalf("after %d rounds", len(said))
			}
		}
		came, done := alice.countUntilLast(apps[0]), 0
		for n, ids := range said {
			if came[n] > 1 || ids > 0 && came[n] != 1 {
				t.Errorf("round %s came %d times, and %d answers said that it was done", n, came[n], ids)
			}
			done += ids
		}
		if done == 0 || len(came) > rounds {
			t.Errorf("%d rounds were done, and %d came", done, len(came))
		}
	})
}

// wantNothingSent wants a request with the key k to be refused because Redis is out of reach. alice is here,
// but only Redis knows whether the request was done before.
func wantNothingSent(t *testing.T, a *App) {
	t.Helper()
	got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k"))
	wantProblem(t, got, http.StatusServiceUnavailable, "redis_unreachable")
	if detail, _ := got.Body["detail"].(string); !strings.Contains(detail, "nothing was sent") {
		t.Errorf("it says %q", detail)
	}
}

func TestIdempotency_RefusesRequestsWithoutRedisAndDoesThemWhenItIsBack(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	alice := connect(t, a, "alice")
	redis.Kill()
	wantNothingSent(t, a)
	redis.Restart()
	redistest.Eventually(t, "the repeat to be done", func() (answer, bool) {
		got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k"))
		return got, got.Status == http.StatusOK
	})
	if came := alice.countUntilLast(a); came["null"] != 1 {
		t.Errorf("it came %d times", came["null"])
	}
}

// A paused Redis does what it was sent when it resumes: claim the key, and free it again if it got that too.
func TestIdempotency_NeverDoesARequestTwiceThatAPausedRedisClaimsLate(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startApp(t, "--redis-url="+redis.URL())
	alice := connect(t, a, "alice")
	redis.Pause()
	wantNothingSent(t, a)
	redis.Resume()
	repeat := redistest.Eventually(t, "Redis to be back", func() (answer, bool) {
		got := ask(t, a, "POST", "/push/alice", `{"event":"x"}`, keyed("k"))
		return got, got.Status != http.StatusServiceUnavailable
	})
	sent := 1
	if repeat.Status != http.StatusOK {
		wantProblem(t, repeat, http.StatusConflict, "under_way")
		sent = 0
	}
	if came := alice.countUntilLast(a); came["null"] != sent {
		t.Errorf("it came %d times, want %d", came["null"], sent)
	}
}

func TestIdempotency_RefusesARepeatWhileTheFirstIsUnderWay(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice") // confirms nothing
	answers := make(chan answer, 2)
	for range 2 {
		go func() {
			answers <- ask(t, a, "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`, keyed("k"))
		}()
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

func TestIdempotency_StoresAResultThatDoesNotDependOnHowLongTheCallerWaits(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	for n := range 20 { // the instance may notice late that the caller is gone
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
		again := redistest.Eventually(t, "the outcome", func() (answer, bool) {
			got := ask(t, a, "POST", path, `{"event":"x"}`, keyed(key))
			return got, got.Status != http.StatusConflict
		})
		wantSockets(t, again, socketCounts(1, 1, 0, 0, 0))
	}
}
