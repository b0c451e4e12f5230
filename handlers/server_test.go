package handlers

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"

	"rollcall/fanout"
	"rollcall/presence"
)

// The fakes are structs of functions. A test sets those that its requests reach. A call of any other panics,
// and the request is answered with 500: so a test that wants a refusal also sees that nothing was done.

type fakeBus struct {
	reason string // why it is not ready; empty: it is

	EmitFn       func(ctx context.Context, emit fanout.Emit) (fanout.Outcome, error)
	KickFn       func(ctx context.Context, user string, except uuid.UUID, reason string) fanout.Outcome
	KickSocketFn func(ctx context.Context, id uuid.UUID, reason string) (fanout.Outcome, error)
	AuditFn      func(ctx context.Context, instances []string) ([]presence.Audit, []string, error)
}

// Begin is not faked: tests of pushes have a real bus, see startIdle.
func (f *fakeBus) Begin([]fanout.Push, time.Time) *fanout.Ticket { panic("a push") }

func (f *fakeBus) Emit(ctx context.Context, emit fanout.Emit) (fanout.Outcome, error) {
	return f.EmitFn(ctx, emit)
}

func (f *fakeBus) Kick(ctx context.Context, user string, except uuid.UUID, reason string) fanout.Outcome {
	return f.KickFn(ctx, user, except, reason)
}

func (f *fakeBus) KickSocket(ctx context.Context, id uuid.UUID, reason string) (fanout.Outcome, error) {
	return f.KickSocketFn(ctx, id, reason)
}

func (f *fakeBus) Audit(ctx context.Context, instances []string) ([]presence.Audit, []string, error) {
	return f.AuditFn(ctx, instances)
}

func (f *fakeBus) NotReadyReason() string { return f.reason }

type fakeDirectory struct {
	LookupFn    func(ctx context.Context, users []string) presence.Answer
	PageFn      func(ctx context.Context, cursor string, limit int) (presence.Answer, error)
	CountFn     func(ctx context.Context) (int64, presence.Moment, bool)
	InstancesFn func(ctx context.Context) ([]presence.Record, error)
}

func (f *fakeDirectory) Lookup(ctx context.Context, users []string) presence.Answer {
	return f.LookupFn(ctx, users)
}

func (f *fakeDirectory) Page(ctx context.Context, cursor string, limit int) (presence.Answer, error) {
	return f.PageFn(ctx, cursor, limit)
}

func (f *fakeDirectory) Count(ctx context.Context) (int64, presence.Moment, bool) {
	return f.CountFn(ctx)
}

func (f *fakeDirectory) Instances(ctx context.Context) ([]presence.Record, error) {
	return f.InstancesFn(ctx)
}

// fakeMirror is not ready for a reason; empty: it is ready.
type fakeMirror struct{ reason string }

func (f *fakeMirror) NotReadyReason() string { return f.reason }
func (f *fakeMirror) Drain(context.Context)  {}

type fakeSockets struct {
	ServeFn func(user string) error
	DrainFn func(over time.Duration)
}

func (f *fakeSockets) Serve(_ http.ResponseWriter, _ *http.Request, user string) error {
	return f.ServeFn(user)
}
func (f *fakeSockets) Drain(_ context.Context, over time.Duration) { f.DrainFn(over) }

// fakes are what a testServer works with.
type fakes struct {
	bus       fakeBus
	directory fakeDirectory
	mirror    fakeMirror
	sockets   fakeSockets
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Request(string, string, int, time.Duration, bool) {}
func (noMeter) Refused(string)                                   {}

const testKey = "key" // an API key

// startServer makes a server with fakes. change, if not nil, changes its options.
func startServer(t *testing.T, f *fakes, change func(*Options)) *Server {
	t.Helper()
	o := testOptions(t)
	o.Mirror, o.Bus, o.Directory = &f.mirror, &f.bus, &f.directory
	o.Sockets = &f.sockets
	if change != nil {
		change(&o)
	}
	return NewServer(o)
}

func testOptions(t *testing.T) Options {
	return Options{
		Instance: "one", Log: slog.New(slog.DiscardHandler),
		Tokens: NewTokens(TokenOptions{Secrets: []string{"secret"}}), APIKeys: []string{testKey},
		Static: fstest.MapFS{"index.html": {}}, MaxMessageBytes: 1024,
		Metrics: http.NotFoundHandler(), Meter: noMeter{},
	}
}

// ask makes a request with an API key. header overrides headers; a nil value takes one away.
func (s *Server) ask(t *testing.T, method, path, body string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header = http.Header{"Authorization": {"Bearer " + testKey}, "Content-Type": {"application/json"}}
	for name, values := range header {
		request.Header[name] = values
	}
	response := httptest.NewRecorder()
	s.ServeHTTP(response, request)
	return response
}

// wantAnswer wants an answer with this status and this JSON, whose order of fields counts. ID stands for any
// UUID in it.
func wantAnswer(t *testing.T, got *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	text := strings.TrimSpace(got.Body.String())
	var answer struct{ ID string }
	if json.Unmarshal([]byte(text), &answer) == nil && answer.ID != "" {
		if id, err := uuid.Parse(answer.ID); err != nil || id.Version() != 7 {
			t.Errorf("the id is %s", answer.ID)
		}
		text = strings.ReplaceAll(text, answer.ID, "ID")
	}
	if got.Code != status || text != body {
		t.Errorf("got %d %s\nwant %d %s", got.Code, text, status, body)
	}
}

// wantProblem wants a problem with this code, whose detail contains a text.
func wantProblem(t *testing.T, got *httptest.ResponseRecorder, status int, code, says string) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(got.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: %v", got.Code, got.Body, err)
	}
	media := got.Header().Get("Content-Type")
	if got.Code != status || p.Code != code || p.Status != status || !strings.Contains(p.Detail, says) ||
		media != "application/problem+json" {
		t.Errorf("got %d %s %s, want %d %s that says %q", got.Code, media, got.Body, status, code, says)
	}
}
