package handlers

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"rollcall/fanout"
)

// endOf reads a body as a stream, whose router does nothing, and returns its last line.
func endOf(t *testing.T, body io.Reader, change func(*stream)) streamEnd {
	t.Helper()
	var one *stream
	synctest.Test(t, func(t *testing.T) {
		s := startIdle(t)
		ctx, cancel := context.WithCancel(t.Context())
		one = s.newStream(http.NewResponseController(httptest.NewRecorder()), fanout.Routed, time.Second)
		change(one)
		go one.readLines(ctx, body)
		synctest.Wait()
		cancel()
		for line := range one.lines {
			line.forget(ctx)
		}
	})
	return one.end
}

func TestAStreamSaysWhyItEndsWithoutTheWordsOfTheNetwork(t *testing.T) {
	const line = `{"user":"alice","event":"x"}`
	internal := iotest.ErrReader(&net.OpError{
		Op: "read", Net: "tcp", Err: errors.New("reset"),
		Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 5123},
	})
	early, silent := iotest.ErrReader(io.ErrUnexpectedEOF), iotest.ErrReader(os.ErrDeadlineExceeded)
	then := func(text string, end io.Reader) io.Reader { return io.MultiReader(strings.NewReader(text), end) }
	for name, c := range map[string]struct {
		body  io.Reader
		why   string
		lines int
	}{
		"whole":                  {strings.NewReader(line + "\n" + line + "\n"), endComplete, 2},
		"without a last newline": {strings.NewReader(line + "\n" + line), endComplete, 2},
		"empty":                  {strings.NewReader(""), endComplete, 0},
		"blank lines":            {strings.NewReader("\n" + line + "\n\n \n"), endComplete, 4},
		"broken":                 {then(line+"\n"+line, internal), endCut, 1},
		"broken in a long line":  {then(line+"\n"+strings.Repeat("x", 9000), internal), endCut, 1},
		"shorter than announced": {then(line+"\n"+line, early), endCut, 1},
		"silent":                 {then(line+"\n", silent), endIdle, 1},
	} {
		got := endOf(t, c.body, func(*stream) {})
		if got.End != c.why || got.Lines != c.lines || (got.Detail == "") != (c.why == endComplete) {
			t.Errorf("%s: %+v, want %s after %d lines", name, got, c.why, c.lines)
		}
		if strings.Contains(got.Detail, "10.0.0.7") || strings.Contains(got.Detail, "reset") {
			t.Errorf("%s: %s", name, got.Detail)
		}
	}
}

func TestAStreamWhoseHeldAnswersAreTooManyBytesEnds(t *testing.T) {
	got := endOf(t, strings.NewReader(`{"user":"alice","event":"x"}`), func(s *stream) {
		s.after = true
		s.held.Store(maxHeldBytes + 1)
	})
	if got.End != endTooMany || got.Lines != 0 {
		t.Errorf("got %+v", got)
	}
}
