package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

const (
	testSecret = "the-secret-of-tests-is-32-bytes-."
	testKey    = "the-key-of-tests-is-32-bytes-too."
)

func TestMain(m *testing.M) {
	options := []goleak.Option{goleak.Cleanup(func(code int) { removeBinary(); os.Exit(code) })}
	for _, lasting := range []string{
		"net/http.(*persistConn).readLoop",
		"net/http.(*persistConn).writeLoop",
		// waits for five seconds to close connections to nodes that have left a Cluster
		"github.com/redis/rueidis.(*clusterClient)._refresh.func2",
	} {
		options = append(options, goleak.IgnoreAnyFunction(lasting))
	}
	goleak.VerifyTestMain(m, options...)
}

// startApp starts an instance with these settings, given as flags. Without --redis-url it has a Redis of its
// own.
func startApp(t *testing.T, flags ...string) *App {
	t.Helper()
	a, err := tryApp(t, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func tryApp(t *testing.T, flags ...string) (*App, error) {
	t.Helper()
	return tryAppWith(t, sockets.Builtin(), flags...)
}

func tryAppWith(t *testing.T, events map[string]sockets.Handler, flags ...string) (*App, error) {
	t.Helper()
	return tryAppLogging(t, testLog{t}, events, flags...)
}

func tryAppLogging(
	t *testing.T, log io.Writer, events map[string]sockets.Handler, flags ...string,
) (*App, error) {
	t.Helper()
	var all commands
	c := &all.Config
	flags = testFlags(flags)
	if _, err := newParser(&all).Parse(flags); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.fillDev()
	return Start(t.Context(), c, events, slog.New(slog.NewTextHandler(log, nil)))
}

// testFlags puts what every instance in a test needs before the flags of the test. Without a Redis, the
// instance is in development mode.
func testFlags(flags []string) []string {
	common := []string{"--addr=127.0.0.1:0", "--jwt-secret=" + testSecret, "--api-keys=" + testKey,
		"--drain=2s", "--dev-serve-key"}
	elsewhere := func(flag string) bool {
		return strings.HasPrefix(flag, "--redis-url=") || flag == "--no-dev"
	}
	if !slices.ContainsFunc(flags, elsewhere) {
		common = append(common, "--dev")
	}
	return append(common, flags...)
}

// startThree starts three instances on one real Redis.
func startThree(t *testing.T, flags ...string) []*App {
	t.Helper()
	redis := redistest.Start(t)
	flags = append(flags, "--redis-url="+redis.URL())
	return []*App{startApp(t, flags...), startApp(t, flags...), startApp(t, flags...)}
}

// testLog writes an instance's log to the log of its test.
type testLog struct{ t *testing.T }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Helper()
	l.t.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

// token makes a valid token for a user, after change has changed its claims.
func token(t *testing.T, user string, change ...func(jwt.MapClaims)) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for _, c := range change {
		c(claims)
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// answer is an answer to an HTTP request.
type answer struct {
	Status int
	Body   map[string]any
	Header http.Header
	text   string
}

// ask makes an HTTP request as a backend with an API key. Headers replace those that it would send; one that
// is nil is not sent.
func ask(t *testing.T, a *App, method, path, body string, headers ...http.Header) answer {
	t.Helper()
	request, err := requestTo(context.Background(), a, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		maps.Copy(request.Header, header)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := answer{Status: response.StatusCode, Header: response.Header, text: string(text)}
	if bytes.HasPrefix(text, []byte("{")) {
		if err := json.Unmarshal(text, &got.Body); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
	return got
}

// requestTo makes a request as a backend with an API key.
func requestTo(ctx context.Context, a *App, method, path, body string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.Addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

// push pushes to a user and checks what the answer says of the user's state and instances.
func push(t *testing.T, a *App, user, body, state string, instances int) answer {
	t.Helper()
	got := ask(t, a, "POST", "/push/"+url.PathEscape(user), body)
	if got.Status != http.StatusOK || got.Body["state"] != state ||
		got.Body["instances"] != float64(instances) {
		t.Fatalf("push to %s: %d %s, want state %s on %d instances", user, got.Status, got.text, state,
			instances)
	}
	return got
}

// wantProblem checks that an answer is a problem with this status and code, and a detail for people.
func wantProblem(t *testing.T, got answer, status int, code string) {
	t.Helper()
	detail, _ := got.Body["detail"].(string)
	if got.Status != status || got.Body["code"] != code || len(detail) < 10 ||
		got.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %s, want the problem %d %s", got.Status, got.Header.Get("Content-Type"), got.text,
			status, code)
	}
}

// wantState waits until an instance reports this state of a user. It may take a moment: one instance learns
// from Redis what another did.
func wantState(t *testing.T, a *App, user, state string, sockets int) map[string]any {
	t.Helper()
	return redistest.Eventually(t, fmt.Sprintf("%s %s with %d sockets", user, state, sockets),
		func() (map[string]any, bool) {
			got := ask(t, a, "GET", "/presence/"+url.PathEscape(user), "")
			return got.Body, got.Status == http.StatusOK && got.Body["state"] == state &&
				got.Body["sockets"] == float64(sockets)
		})
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil &&
		reflect.DeepEqual(x, y)
}

// listed reads all pages of /presence and returns the users, sorted. If Redis was too slow for a page, the
// instance answered with what it knows by itself, and the reading begins again.
func listed(t *testing.T, a *App, limit int) []string {
	t.Helper()
	return redistest.Eventually(t, "pages that are not stale", func() (users []string, sound bool) {
		sound = true
		for cursor := ""; ; {
			path := fmt.Sprintf("/presence?limit=%d&cursor=%s", limit, url.QueryEscape(cursor))
			got := ask(t, a, "GET", path, "")
			page, ok := got.Body["users"].([]any)
			if !ok || len(page) > limit {
				t.Fatalf("page: %d %s", got.Status, got.text)
			}
			for _, u := range page {
				users = append(users, u.(map[string]any)["user"].(string))
			}
			sound = sound && got.Body["stale"] == false
			if cursor, _ = got.Body["next"].(string); cursor == "" {
				slices.Sort(users)
				return users, sound
			}
		}
	})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
