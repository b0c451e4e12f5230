package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/static"
)

func TestProxy_PassesSocketsPushesAndAnswers(t *testing.T) {
	t.Parallel()
	startBalanced(t).behindEach(func(t *testing.T, f *front) {
		alice, other := connect(t, f.public, "alice"), connect(t, f.public, "alice")
		bob := connect(t, f.public, "bob")
		alice.send(`{"event":"events","ref":"1"}`)
		for _, n := range []string{"1", "2", "3"} {
			alice.wantFrame("events", n)
			other.wantFrame("events", n)
		}
		const wait, body = "?wait=written&timeout=5s", `{"event":"x"}`
		wantSockets(t, ask(t, f.backends, "POST", "/push/alice"+wait, body), socketCounts(2, 0, 0, 0, 0))
		alice.wantFrame("x", "null")
		other.wantFrame("x", "null")
		wantSockets(t, ask(t, f.backends, "POST", "/push/a%2Fb"+wait, body), socketCounts(0, 0, 0, 0, 0))
		if got := ask(t, f.backends, "DELETE", "/presence/alice", ""); !sameJSON(got.text, `{"closed":2}`) {
			t.Errorf("kick: %s", got.text)
		}
		alice.wantClose(4003)
		other.wantClose(4003)
		bob.leave()
	})
}

// streamLines is so many that a test runs into its patience if each line takes the 200 ms for which a proxy
// may hold back what it could send.
const streamLines = 400

func TestProxy_PassesAStreamLineByLine(t *testing.T) {
	t.Parallel()
	startBalanced(t).behindEach(func(t *testing.T, f *front) {
		alice := connect(t, f.public, "alice")
		s := f.openStream(t, "?wait=written&timeout=5s")
		giveUp := time.AfterFunc(redistest.Patience, func() { s.body.Close() })
		defer giveUp.Stop()
		for n := range streamLines { // each answer before the next line is sent
			s.send(numberLine("alice", n))
			s.wantNumber("alice", n)
			alice.wantFrame("n", fmt.Sprint(n))
		}
		s.wantComplete(streamLines)
		alice.leave()
	})
}

// openStream opens a stream that is answered line by line. If the proxy is not full duplex, the request says
// that the connection closes after it.
func (f *front) openStream(t *testing.T, query string) *stream {
	t.Helper()
	body, lines := io.Pipe()
	request := streamTo(t, f.backends.Addr, query, body)
	request.Close = !f.fullDuplex
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lines.Close(); response.Body.Close() })
	return &stream{t, lines, bufio.NewScanner(response.Body), response.Body}
}

func TestProxy_PassesAStreamWhoseAnswersComeAfterItAtFullSpeed(t *testing.T) {
	t.Parallel()
	startBalanced(t).behindEach(func(t *testing.T, f *front) {
		people := []*socket{connect(t, f.public, "alice"), connect(t, f.public, "bob")}
		names := []string{"alice", "bob"}
		body, lines := io.Pipe()
		go func() {
			for n := range streamLines {
				fmt.Fprintln(lines, numberLine(names[n%2], n))
			}
			lines.Close()
		}()
		s := streamFrom(t, f.backends.Addr, "?answers=after&wait=written&timeout=5s", lines, body)
		for n := range streamLines {
			s.wantNumber(names[n%2], n)
			people[n%2].wantFrame("n", fmt.Sprint(n))
		}
		s.wantComplete(streamLines)
		people[0].leave()
		people[1].leave()
	})
}

// numberLine is a line of a stream that pushes a number.
func numberLine(user string, n int) string {
	return fmt.Sprintf(`{"user":%q,"event":"n","data":%d,"ref":"%d"}`, user, n, n)
}

// wantNumber checks that the next answer is about this number, pushed to this user.
func (s *stream) wantNumber(user string, n int) {
	s.t.Helper()
	got, _ := s.answer()
	counts, _ := got["sockets"].(map[string]any)
	if got["user"] != user || got["ref"] != fmt.Sprint(n) || counts["written"] != 1.0 {
		s.t.Fatalf("number %d to %s is answered with %v", n, user, got)
	}
}

// wantComplete ends the stream, and checks that its last line says that it was complete.
func (s *stream) wantComplete(lines int) {
	s.t.Helper()
	s.lines.Close()
	if got, _ := s.answer(); got["end"] != "complete" || got["lines"] != float64(lines) {
		s.t.Errorf("the last line is %v", got)
	}
	if got, more := s.answer(); more {
		s.t.Errorf("after the last line: %v", got)
	}
}

// backendPaths must not be reachable from outside.
var backendPaths = []string{
	"/push/alice", "/push", "/emit/all", "/emit/authenticated", "/presence", "/presence/alice",
	"/presence/count", "/sockets/x", "/instances", "/audit", "/metrics", "/readyz",
	// paths that the server takes for one of these and a proxy that cleans up paths for another, or the
	// reverse
	"/push/%2e%2e/ws", "/push/../ws", "/push/..%2fpage.js", "/push/%2e%2e/page.js", "//push/alice",
	"/./push/alice", "/%70ush/alice", "/ws/../push/alice", "/ws/%2e%2e/push/alice",
	"/page.js/../push/alice", "/push/page.js", "/push//page.js", "/presence/x.css",
	"/presence;/page.js", "/push/alice%00.js", "/push/x%0a/page.js", "/push?/page.js", "/push#/page.js",
}

func TestProxy_PublicSideServesOnlyWhatBrowsersNeed(t *testing.T) {
	t.Parallel()
	startBalanced(t).behindEach(func(t *testing.T, f *front) {
		alice := connect(t, f.public, "alice")
		for _, path := range backendPaths {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				wantRefusedOrFile(t, method+" "+path, askRaw(t, f.public, method, path))
			}
		}
		push(t, f.backends, "alice", `{"event":"last"}`, "online", 1)
		alice.wantFrame("last", "null") // and nothing before it
		files, err := fs.Glob(static.Files, "*")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range append(files, "", "healthz") {
			got := ask(t, f.public, "GET", "/"+path, "", http.Header{"Authorization": nil})
			if got.Status != http.StatusOK || got.text == "" {
				t.Errorf("/%s: %d %s", path, got.Status, got.text)
			}
		}
	})
}

// wantRefusedOrFile checks that the proxy refused a request, or took its path for a file's or for /ws and
// asked the instance for that.
func wantRefusedOrFile(t *testing.T, what string, got answer) {
	t.Helper()
	kind, _, _ := strings.Cut(got.Header.Get("Content-Type"), ";")
	file := slices.Contains([]string{"text/html", "text/javascript", "text/css", "image/svg+xml"}, kind)
	asked := strings.HasPrefix(what, "GET ")
	socket := strings.Contains(got.text, `"code":"bad_token"`) // which the key is to /ws
	switch {
	case got.Status >= 400 && kind != "application/problem+json":
	case asked && (got.Status == http.StatusOK && file || socket):
	default:
		t.Errorf("%s gets through to an instance: %d %s %.300s", what, got.Status, kind, got.text)
	}
}

// askRaw asks for a path exactly as it is given, with a valid key.
func askRaw(t *testing.T, a *App, method, path string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{"event":"x"}`
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		method, path, a.Addr, testKey, len(body), body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{Status: response.StatusCode, Header: response.Header, text: string(text)}
}

// longIDs returns so many user ids of 36 bytes, as long as UUIDs.
func longIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
	}
	return ids
}

func TestProxy_PassesQuestionsAboutManyUsers(t *testing.T) {
	t.Parallel()
	startBalanced(t).behindEach(func(t *testing.T, f *front) {
		fits, more := longIDs(340), longIDs(1000)
		wantUsers(t, ask(t, f.backends, "GET", "/presence?user="+strings.Join(fits, "&user="), ""), fits)
		body := string(marshal(t, map[string]any{"users": more}))
		wantUsers(t, ask(t, f.backends, "POST", "/presence", body), more)
	})
}

func wantUsers(t *testing.T, got answer, want []string) {
	t.Helper()
	users, _ := got.Body["users"].([]any)
	if got.Status != http.StatusOK || len(users) != len(want) {
		t.Fatalf("about %d users: %d with %d of them, %.300s", len(want), got.Status, len(users), got.text)
	}
	for n, user := range users {
		if name := user.(map[string]any)["user"]; name != want[n] {
			t.Fatalf("the %d. user is %v, want %s", n+1, name, want[n])
		}
	}
}
