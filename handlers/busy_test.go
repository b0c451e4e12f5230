package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"testing/synctest"
	"time"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/presence"
)

const busyShards = 5 // so that all their queues together hold more pushes than may wait for replies

// idle is a server whose bus does not run: what is pushed waits for ever.
type idle struct {
	*Server
	bus *fanout.Bus
}

func startIdle(t *testing.T) idle {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	redis := presence.Redis{Keys: presence.NewKeys("x", busyShards), Lease: time.Second}
	mirror, local := presence.NewMirror(presence.MirrorOptions{Redis: redis, Log: log})
	bus := fanout.NewBus(fanout.Options{Redis: redis, Sockets: local, Mirror: mirror, Log: log})
	return idle{NewServer(Options{
		Context: t.Context(), Mirror: mirror, Presence: mirror.Directory(), Bus: bus, Log: log,
		APIKeys: []string{"key"}, Static: fstest.MapFS{}, MaxMessageBytes: 1024, Metrics: http.NotFoundHandler(),
	}), bus}
}

// fill pushes until no push finds room.
func (s idle) fill(t *testing.T, wait fanout.Wait) {
	t.Helper()
	for n, refused := 0, 0; refused < 1000; n++ { // in a row: all shards are full
		before := s.waiting()
		s.bus.Begin([]fanout.Push{{User: fmt.Sprint(n), Wait: wait}}, time.Now().Add(time.Hour))
		if refused++; s.waiting() > before {
			refused = 0
		}
	}
}

func (s idle) waiting() int {
	pushes, _ := s.bus.Waiting()
	return pushes
}

// wantRefusal wants a request to be told to come again, in words.
func (s idle) wantRefusal(t *testing.T, path, contentType string, status int, says string) {
	t.Helper()
	request := httptest.NewRequest("POST", path, strings.NewReader(`{"event":"x"}`))
	request.Header.Set("Authorization", "Bearer key")
	request.Header.Set("Content-Type", contentType)
	response := httptest.NewRecorder()
	s.ServeHTTP(response, request)
	wantComeAgain(t, response, status, says)
}

func wantComeAgain(t *testing.T, response *httptest.ResponseRecorder, status int, says string) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(response.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: %v", response.Code, response.Body, err)
	}
	header := response.Header()
	if response.Code != status || header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(p.Detail, says) {
		t.Errorf("got %d %v %s, want %d that says %q, and when to come again", response.Code, header, response.Body, status, says)
	}
}

func TestWhatFindsNoRoomIsToldWhichRoomAndToComeAgain(t *testing.T) {
	t.Run("pushes", func(t *testing.T) {
		s := startIdle(t)
		s.fill(t, fanout.Routed)
		s.wantRefusal(t, "/push/alice", "application/json", 503, "push queue is full")
	})
	t.Run("questions", func(t *testing.T) {
		s := startIdle(t)
		s.fill(t, fanout.Written)
		s.wantRefusal(t, "/push/alice?wait=written", "application/json", 503, "delivery reports")
		s.wantRefusal(t, "/emit/all?wait=acked", "application/json", 503, "delivery reports")
	})
	t.Run("streams", func(t *testing.T) {
		s := startIdle(t)
		s.streams.Store(maxStreams)
		s.wantRefusal(t, "/push", "application/x-ndjson", 503, "256 streams are open here")
		if open := s.streams.Load(); open != maxStreams {
			t.Errorf("%d are open", open)
		}
	})
}

func TestEveryRefusalThatPassesSaysWhenToComeAgain(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{fanout.ErrBusy, 503, "nothing was sent"},
		{fanout.ErrAsking, 503, "nothing was sent"},
		{fanout.ErrClosing, 503, "nothing was sent"},
		{idempotency.ErrUnreachable, 503, "nothing was sent"},
		{idempotency.ErrTooManyKeys, 429, "nothing was sent"},
		{idempotency.ErrInProgress, 409, "nothing was sent"},
		{fanout.ErrUnreachable, 503, "may or may not"},
		{context.DeadlineExceeded, 503, "out of reach"},
		{problem(http.StatusServiceUnavailable, "not_ready", "see reasons"), 503, "reasons"},
	} {
		response := httptest.NewRecorder()
		writeProblem(response, problemOf(fmt.Errorf("wrapped: %w", c.err)))
		wantComeAgain(t, response, c.status, c.says)
	}
	response := httptest.NewRecorder()
	writeProblem(response, problemOf(errors.New("ours")))
	if response.Code != 500 || response.Header().Get("Retry-After") != "" {
		t.Errorf("got %d %v", response.Code, response.Header())
	}
}

// endless is a body that never ends: one line after the other.
type endless string

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

func TestAStreamReadsOnlySoFarAheadOfItsAnswers(t *testing.T) {
	short := `{"user":"alice","event":"x"}` + "\n"
	long := `{"user":"alice","event":"x","data":"` + strings.Repeat("x", 1000) + `"}` + "\n"
	for line, ahead := range map[string]int{short: streamWindow + 1, long + long: streamBytes / len(long)} {
		synctest.Test(t, func(t *testing.T) {
			s := startIdle(t)
			ctx, cancel := context.WithCancel(t.Context())
			one := s.newStream(http.NewResponseController(httptest.NewRecorder()), fanout.Routed, time.Second)
			if len(line) > 1000 { // room by bytes is what counts then
				one.lines = make(chan pendingLine, 2*streamBytes)
			}
			go one.readLines(ctx, endless(line))
			synctest.Wait() // nobody reads the answers
			if got := s.waiting(); got != ahead {
				t.Errorf("%d lines were sent on their way, want %d", got, ahead)
			}
			one.room.Release((<-one.lines).size)
			synctest.Wait()
			if got, want := s.waiting(), ahead+1; got != want {
				t.Errorf("after one answer %d lines were sent on their way, want %d", got, want)
			}
			cancel()
			for range one.lines {
			}
		})
	}
}

// deadlines is a response that notes how often it got a deadline.
type deadlines struct {
	http.ResponseWriter
	read, write int
}

func (d *deadlines) SetReadDeadline(time.Time) error  { d.read++; return nil }
func (d *deadlines) SetWriteDeadline(time.Time) error { d.write++; return nil }

func TestAClientOfAStreamHasTimeForEachPart(t *testing.T) {
	given := &deadlines{ResponseWriter: httptest.NewRecorder()}
	one := startIdle(t).newStream(http.NewResponseController(given), fanout.Routed, time.Second)
	const parts = 10
	body := strings.NewReader(strings.Repeat(" \n ", parts)) // each ends within a line
	one.readLines(t.Context(), timedBody{struct{ io.Reader }{iotest.OneByteReader(body)}, one, t.Context().Err})
	if want := int(body.Size()) + 1; given.read != want { // and the end
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

func TestALineThatIsTooLongIsReadToItsEnd(t *testing.T) {
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
