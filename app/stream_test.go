package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"rollcall/lua/redistest"
)

// stream is a POST /push of application/x-ndjson that is under way.
type stream struct {
	t       *testing.T
	lines   io.WriteCloser
	answers *bufio.Scanner
	body    io.Closer
}

func openStream(t *testing.T, a *App, query string) *stream {
	t.Helper()
	body, lines := io.Pipe()
	return streamFrom(t, a.Addr, query, lines, body)
}

// streamTo makes the request of a stream.
func streamTo(t *testing.T, addr, query string, body io.Reader) *http.Request {
	t.Helper()
	request, err := http.NewRequest("POST", "http://"+addr+"/push"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	request.Header.Set("Content-Type", "application/x-ndjson")
	return request
}

// streamFrom opens a stream whose lines are written to one side and read from the other.
func streamFrom(t *testing.T, addr, query string, lines io.WriteCloser, body io.Reader) *stream {
	t.Helper()
	request := streamTo(t, addr, query, body)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("%d %s", response.StatusCode, text)
	}
	s := &stream{t, lines, bufio.NewScanner(response.Body), response.Body}
	t.Cleanup(func() { lines.Close(); response.Body.Close() })
	return s
}

func (s *stream) send(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.lines, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// answer returns the next line of the answer; false at the end.
func (s *stream) answer() (map[string]any, bool) {
	s.t.Helper()
	if !s.answers.Scan() {
		return nil, false
	}
	var got map[string]any
	if err := json.Unmarshal(s.answers.Bytes(), &got); err != nil {
		s.t.Fatalf("%s: %v", s.answers.Bytes(), err)
	}
	return got, true
}

func TestStream_AnswersEachLineInOrderWhileItIsOpen(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	alice, bob := connect(t, apps[0], "alice"), connect(t, apps[1], "bob")
	s := openStream(t, apps[2], "?wait=written")
	// each answer before the next line is sent
	for n, user := range []string{"alice", "bob", "nobody", "alice"} {
		s.send(fmt.Sprintf(`{"user":%q,"event":"n","data":%d}`, user, n))
		got, _ := s.answer()
		if got["user"] != user || got["id"] == nil || (got["state"] == "online") != (user != "nobody") ||
			got["sockets"] == nil {
			t.Errorf("line %d: %v", n, got)
		}
	}
	alice.wantFrame("n", "0")
	alice.wantFrame("n", "3")
	bob.wantFrame("n", "1")
	s.lines.Close()
	s.wantEnd("complete", 4)
}

// wantEnd checks that the next line is the last, why the stream ended, and how many lines were taken.
func (s *stream) wantEnd(why string, lines int) {
	s.t.Helper()
	got, _ := s.answer()
	if detail, _ := got["detail"].(string); got["end"] != why || got["lines"] != float64(lines) ||
		(why == "complete") != (detail == "") {
		s.t.Errorf("got %v, want the end %q after %d lines", got, why, lines)
	}
	if got, more := s.answer(); more || s.answers.Err() != nil {
		s.t.Errorf("after the last line: %v, %v", got, s.answers.Err())
	}
}

func TestStream_GoesOnAfterABadLine(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-message-bytes=1024")
	alice := connect(t, a, "alice")
	s := openStream(t, a, "")
	for _, line := range []struct{ text, says string }{
		{`{"user":"alice"`, "unexpected"},
		{`{"user":"","event":"x"}`, "is empty"},
		{`{"user":"alice","event":"rollcall:x"}`, "reserved"},
		{`{"user":"alice","event":"x","users":[]}`, "users"},
		{`[]`, "want a JSON object"},
		{strings.Repeat("x", 200_000), "longer"},
		{`{"user":"alice","event":"x","data":"` + strings.Repeat("x", 1100) + `"}`, "limit is 1024"},
		{"{\"user\":\"alice\",\"event\":\"x\",\"data\":\"\xff\"}", "UTF-8"},
	} {
		s.send(line.text)
		got, _ := s.answer()
		if text, _ := got["error"].(string); !strings.Contains(text, line.says) || got["line"] == nil {
			t.Errorf("%.40s: %v, want %q", line.text, got, line.says)
		}
	}
	s.send("")
	s.send(`{"user":"alice","event":"x"}`)
	if got, _ := s.answer(); got["instances"] != 1.0 {
		t.Errorf("%v", got)
	}
	alice.wantFrame("x", "null")
	s.send("{")
	if got, _ := s.answer(); got["line"] != 11.0 {
		t.Errorf("%v, want it to be line 11", got)
	}
	// without a newline at the end
	if _, err := io.WriteString(s.lines, `{"user":"alice","event":"last"}`); err != nil {
		t.Fatal(err)
	}
	s.lines.Close()
	if got, _ := s.answer(); got["instances"] != 1.0 {
		t.Errorf("%v", got)
	}
	alice.wantFrame("last", "null")
	s.wantEnd("complete", 12)
}

func TestStream_PushesForOneUserArriveInOrder(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	here, there := connect(t, apps[0], "alice"), connect(t, apps[1], "alice")
	s := openStream(t, apps[0], "?wait=written&timeout=5s") // so that no socket has more waiting than it may
	const pushes = 5000
	go func() {
		for n := range pushes {
			if _, err := fmt.Fprintf(s.lines, "{\"user\":\"alice\",\"event\":\"n\",\"data\":%d}\n",
				n); err != nil {
				return
			}
		}
		s.lines.Close()
	}()
	var last string
	for n := range pushes {
		got, more := s.answer()
		id, _ := got["id"].(string)
		if !more || got["instances"] != 2.0 || id <= last { // ids sort by time
			t.Fatalf("answer %d: %v", n, got)
		}
		last = id
	}
	for n := range pushes {
		here.wantFrame("n", fmt.Sprint(n))
		there.wantFrame("n", fmt.Sprint(n))
	}
}

func TestStream_WhoseClientGoesAwayHarmsNobody(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	s := openStream(t, a, "")
	s.send(`{"user":"alice","event":"x"}`)
	alice.wantFrame("x", "null")
	s.body.Close() // it went away without a word
	push(t, a, "alice", `{"event":"y"}`, "online", 1)
	alice.wantFrame("y", "null")
}

func TestStream_LeavesAConnectionThatServesRequests(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	post := func(path, contentType, body string) {
		t.Helper()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			path, testKey, contentType, len(body), body)
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), "offline") {
			t.Errorf("%s: %d %s, %v", path, response.StatusCode, text, err)
		}
	}
	for range 100 { // a stream, and a request whose context must not have ended with it
		post("/push", "application/x-ndjson", `{"user":"alice","event":"x"}`+"\n")
		post("/push/alice", "application/json", `{"event":"x"}`)
	}
}

func TestStream_AnAnswerDoesNotWaitForTheNext(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	s := openStream(t, a, "?wait=acked&timeout=5s")
	s.send(`{"user":"nobody","event":"x"}` + "\n" + `{"user":"alice","event":"x"}`)
	if got, _ := s.answer(); got["user"] != "nobody" {
		t.Fatalf("%v", got)
	}
	id := alice.wantFrame("x", "null").ID
	alice.send(fmt.Sprintf(`{"event":"rollcall:ack","data":{"id":%q}}`, id)) // only now
	if got, _ := s.answer(); got["id"] != id || got["sockets"].(map[string]any)["acked"] != 1.0 {
		t.Errorf("%v", got)
	}
}

func TestStream_AnInstanceThatStopsAnswersWhatItHasSent(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	s := openStream(t, p.App, "")
	s.send(`{"user":"alice","event":"x"}`)
	if got, _ := s.answer(); got["state"] != "offline" {
		t.Fatalf("%v", got)
	}
	p.signal(syscall.SIGTERM)
	s.wantEnd("draining", 1)
	p.wantExit(0)
}

func TestStream_ThatIsLeftKeepsNothing(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for range 3 {
		alice := connect(t, a, "alice") // who will not confirm
		s := openStream(t, a, "?wait=acked&timeout=5s")
		go func() {
			for {
				if _, err := io.WriteString(s.lines, `{"user":"alice","event":"x"}`+"\n"); err != nil {
					return
				}
			}
		}()
		wantMetric(t, a, "rollcall_open_questions 514") // its window is full, and both ends have one
		s.body.Close()
		s.lines.Close()
		alice.drop() // which ends the wait for her before its deadline
		wantMetric(t, a, "rollcall_open_questions 0")
		wantMetric(t, a, "rollcall_open_streams 0")
	}
}

func wantMetric(t *testing.T, a *App, line string) {
	t.Helper()
	redistest.Eventually(t, line, func() (string, bool) {
		metrics := ask(t, a, "GET", "/metrics", "").text
		return metrics, strings.Contains(metrics, "\n"+line+"\n")
	})
}
