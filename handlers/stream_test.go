package handlers

import (
	"bufio"
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

// newStream makes a stream whose pushes wait for Redis.
func (s idle) newStream(w http.ResponseWriter) *stream {
	return s.Server.newStream(http.NewResponseController(w), fanout.Routed, time.Second)
}

// endOf reads a body as a stream, and returns its last line.
func endOf(t *testing.T, body io.Reader, change func(*stream)) streamEnd {
	t.Helper()
	var one *stream
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		one = startIdle(t).newStream(httptest.NewRecorder())
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

func TestStream_SaysWhyItEndsAndQuotesNoErrorOfTheNetwork(t *testing.T) {
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

func TestStream_EndsWhenTheAnswersThatItHoldsAreTooManyBytes(t *testing.T) {
	got := endOf(t, strings.NewReader(`{"user":"alice","event":"x"}`), func(s *stream) {
		s.after = true
		s.held.Store(maxHeldBytes + 1)
	})
	if got.End != endTooMany || got.Lines != 0 {
		t.Errorf("got %+v", got)
	}
}

// endless is a body that never ends: the same line again and again.
type endless string

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

func TestStream_ReadsOnlySoFarAheadOfItsAnswers(t *testing.T) {
	short := `{"user":"alice","event":"x"}` + "\n"
	long := `{"user":"alice","event":"x","data":"` + strings.Repeat("x", 1000) + `"}` + "\n"
	for line, ahead := range map[string]int{short: streamWindow + 1, long + long: streamBytes / len(long)} {
		synctest.Test(t, func(t *testing.T) {
			s := startIdle(t)
			ctx, cancel := context.WithCancel(t.Context())
			one := s.newStream(httptest.NewRecorder())
			if len(line) > 1000 { // then its bytes are what counts
				one.lines = make(chan pendingLine, 2*streamBytes)
			}
			go one.readLines(ctx, endless(line))
			synctest.Wait() // nobody reads the answers
			if got := s.waiting(); got != ahead {
				t.Errorf("%d lines were pushed, want %d", got, ahead)
			}
			one.room.Release((<-one.lines).size)
			synctest.Wait()
			if got, want := s.waiting(), ahead+1; got != want {
				t.Errorf("after one answer %d lines were pushed, want %d", got, want)
			}
			cancel()
			for range one.lines {
			}
		})
	}
}

// deadlines is a response that counts how often it got a deadline.
type deadlines struct {
	http.ResponseWriter
	read, write int
}

func (d *deadlines) SetReadDeadline(time.Time) error  { d.read++; return nil }
func (d *deadlines) SetWriteDeadline(time.Time) error { d.write++; return nil }

func TestStream_GivesItsClientTimeForEachReadAndWrite(t *testing.T) {
	given := &deadlines{ResponseWriter: httptest.NewRecorder()}
	one := startIdle(t).newStream(given)
	const parts = 10
	text := strings.NewReader(strings.Repeat(" \n ", parts)) // each ends within a line
	body := struct{ io.Reader }{iotest.OneByteReader(text)}
	one.readLines(t.Context(), timedBody{body, one, t.Context().Err})
	if want := int(text.Size()) + 1; given.read != want { // and the end
		t.Errorf("%d deadlines for %d reads", given.read, want)
	}
	answers := timedResponse{given, one}
	for range parts {
		if _, err := answers.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if given.write != parts {
		t.Errorf("%d deadlines for %d writes", given.write, parts)
	}
}

func TestReadLine_ReadsALineThatIsTooLongToItsEnd(t *testing.T) {
	body := strings.NewReader(strings.Repeat("x", 10_000) + "\n" + "next\n")
	reader := bufio.NewReaderSize(body, 16)
	if line, tooLong, err := readLine(reader, 100); line != nil || !tooLong || err != nil {
		t.Errorf("got %d bytes, %v, %v", len(line), tooLong, err)
	}
	if line, tooLong, err := readLine(reader, 100); string(line) != "next\n" || tooLong || err != nil {
		t.Errorf("then %q, %v, %v", line, tooLong, err)
	}
	if _, _, err := readLine(reader, 100); err != io.EOF {
		t.Errorf("at the end %v", err)
	}
}
