package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// startProxy starts Go's own reverse proxy in front of an instance.
func startProxy(t *testing.T, a *App, fullDuplex bool) (addr string) {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: a.Addr})
	proxy.Transport = &http.Transport{}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fullDuplex {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	return strings.TrimPrefix(server.URL, "http://")
}

// refLine is a line whose ref is the user, whom its answer must name too.
func refLine(n int) string {
	return fmt.Sprintf("{\"ref\":\"u%d\",\"user\":\"u%d\",\"event\":\"n\",\"data\":%d}\n", n, n, n)
}

func TestStream_IsAnsweredWhileItIsOpenThroughAGoProxyThatIsFullDuplex(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	body, lines := io.Pipe()
	s := streamFrom(t, startProxy(t, a, true), "", lines, body)
	for n := range 20 { // each answer before the next line is sent
		s.send(strings.TrimSpace(refLine(n)))
		if got, _ := s.answer(); got["ref"] != fmt.Sprint("u", n) || got["user"] != got["ref"] {
			t.Errorf("line %d: %v", n, got)
		}
	}
	s.lines.Close()
	s.wantEnd("complete", 20)
}

func TestStream_IsWholeThroughAnyGoProxyIfItIsAnsweredAfterItsEnd(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	for _, fullDuplex := range []bool{false, true} {
		body, lines := io.Pipe()
		const count = 3000 // more than the window, the proxy's buffers, and what it would throw away
		go func() {
			for n := range count {
				_, _ = io.WriteString(lines, refLine(n))
			}
			_, _ = io.WriteString(lines, `{"user":"alice","event":"last"}`)
			lines.Close()
		}()
		s := streamFrom(t, startProxy(t, a, fullDuplex), "?answers=after", lines, body)
		for n := range count {
			got, _ := s.answer()
			if got["ref"] != fmt.Sprint("u", n) || got["user"] != got["ref"] || got["state"] != "offline" ||
				got["line"] != nil {
				t.Fatalf("line %d: %v", n, got)
			}
		}
		if got, _ := s.answer(); got["line"] != count+1.0 || got["user"] != "alice" ||
			got["instances"] != 1.0 {
			t.Errorf("%v", got)
		}
		s.wantEnd("complete", count+1)
		alice.wantFrame("last", "null")
	}
}

// Without full duplex Go's proxy drops parts of the body, by chance more or fewer. The caller must be able to
// tell: the last line counts what came through, and each answer names its own line.
func TestStream_CallerCanTellThatAGoProxyLostLines(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for range 5 {
		body, lines := io.Pipe()
		const count = 200
		go func() {
			defer lines.Close()
			for n := range count {
				if _, err := io.WriteString(lines, refLine(n)); err != nil {
					return
				}
			}
		}()
		response, err := http.DefaultClient.Do(streamTo(t, startProxy(t, a, false), "", body))
		if err != nil {
			continue // the caller is told
		}
		s := &stream{t, lines, bufio.NewScanner(response.Body), response.Body}
		answers, named := 0.0, map[any]bool{}
		for got, more := s.answer(); more; got, more = s.answer() {
			if why := got["end"]; why != nil {
				if why == "complete" && got["lines"] != answers {
					t.Errorf("%v answers, and then %v", answers, got)
				}
				continue
			}
			answers++
			if ref := got["ref"]; ref == nil && got["error"] == nil || ref != nil && named[ref] {
				t.Errorf("whose answer is %v?", got)
			}
			named[got["ref"]] = true
		}
		response.Body.Close()
	}
}

func TestStream_PassesAGoProxyBothWaysIfTheRequestSaysThatTheConnectionCloses(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	body, lines := io.Pipe()
	request := streamTo(t, startProxy(t, a, false), "", body)
	request.Close = true // Go's server then throws nothing away
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	s := &stream{t, lines, bufio.NewScanner(response.Body), response.Body}
	for n := range 20 {
		s.send(strings.TrimSpace(refLine(n)))
		if got, _ := s.answer(); got["ref"] != fmt.Sprint("u", n) {
			t.Errorf("line %d: %v", n, got)
		}
	}
	s.lines.Close()
	s.wantEnd("complete", 20)
}

func TestStream_PushesNoLineOfABodyThatWasCut(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	const whole, cut = "{\"user\":\"alice\",\"event\":\"whole\"}\n", `{"user":"alice","event":"cut"}`
	const chunked, size = "Transfer-Encoding: chunked\r\n\r\n", len(whole) + len(cut)
	for _, query := range []string{"", "?answers=after"} {
		for framing, body := range map[string]string{
			"chunked, within a chunk":      chunked + fmt.Sprintf("%x\r\n%s%s", size+1, whole, cut),
			"chunked, between two":         chunked + fmt.Sprintf("%x\r\n%s%s\r\n", size, whole, cut),
			"chunked, with another's text": chunked + fmt.Sprintf("%x\r\n%s%s\r\nHTTP/1.1", size, whole, cut),
			"of a length":                  fmt.Sprintf("Content-Length: %d\r\n\r\n%s%s", size+1, whole, cut),
		} {
			s := streamRaw(t, a, query, body)
			if got, _ := s.answer(); got["user"] != "alice" || got["line"] != 1.0 || got["instances"] != 1.0 {
				t.Errorf("%s: %v", framing, got)
			}
			s.wantEnd("cut", 1)
			alice.wantFrame("whole", "null") // and the next frame is not the one that was cut
		}
	}
	push(t, a, "alice", `{"event":"after"}`, "online", 1)
	alice.wantFrame("after", "null")
}

// streamRaw sends these bytes after the head of a stream's request, and nothing more.
func streamRaw(t *testing.T, a *App, query, rest string) *stream {
	t.Helper()
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /push%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/x-ndjson\r\n%s", query, testKey, rest)
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{t, nil, bufio.NewScanner(response.Body), response.Body}
}

func TestStream_AnAnswerNamesItsLineByItsRefOrElseByItsNumber(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	s := openStream(t, a, "")
	long := strings.Repeat("r", 128)
	for _, c := range []struct{ line, ref string }{
		{`{"user":"alice","event":"x","ref":"a/1"}`, `a/1`},
		{`{"ref":"` + long + `","user":"alice","event":"x"}`, long},
		{`{"ref":"` + strings.Repeat(`\u00e9`, 64) + `","user":"alice","event":"x"}`,
			strings.Repeat("é", 64)},
		{`{"ref":"\"\\","user":"alice","event":"x"}`, `"\`},
		{`{"user":"alice","event":"rollcall:x","ref":"bad event"}`, "bad event"},
		{`{"user":7,"event":"x","ref":"bad user"}`, "bad user"},
		{`{"usr":"alice","event":"x","ref":"unknown field"}`, "unknown field"},
		{`{"user":"alice","event":"x"}`, ""},
		{`{"user":"alice","event":"x","ref":7}`, ""},
		{`{"user":"alice","event":"x","ref":"` + long + `r"}`, ""},
		{`{"user":"alice","event":"x","ref":"a","ref":"b"}`, ""},
		{`{"user":"alice","event":"x","ref":"not JSON"`, ""},
	} {
		s.send(c.line)
		got, _ := s.answer()
		if ref, _ := got["ref"].(string); ref != c.ref || (got["line"] == nil) == (c.ref == "") {
			t.Errorf("%.60s: %v, want the ref %q", c.line, got, c.ref)
		}
	}
	s.lines.Close()
	s.wantEnd("complete", 12)
}

func TestStream_ThatIsAnsweredAfterItsEndHasALimit(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	fits := "\n" + strings.Repeat(`{"user":"nobody","event":"x"}`+"\n", 9_999)
	body := strings.NewReader(fits + `{"user":"alice","event":"x"}`)
	alice := connect(t, a, "alice")
	s := streamFrom(t, a.Addr, "?answers=after", nopCloser{}, body)
	for range 9_999 {
		s.answer()
	}
	s.wantEnd("too_many_lines", 10_000)
	push(t, a, "alice", `{"event":"after"}`, "online", 1)
	alice.wantFrame("after", "null")
	lines := http.Header{"Content-Type": {"application/x-ndjson"}}
	wantProblem(t, ask(t, a, "POST", "/push?answers=before", "", lines), 400, "bad_answers")
	wantProblem(t, ask(t, a, "POST", "/push?answers=after", `{"users":["alice"],"event":"x"}`), 400,
		"bad_query")
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
