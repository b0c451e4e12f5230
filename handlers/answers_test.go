package handlers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"rollcall/fanout"
	"rollcall/presence"
)

const second = presence.Moment(1000) // 1970-01-01T00:00:01.000Z

func TestPushAnswer_HasOptionalFieldsOnlyWhereTheyApply(t *testing.T) {
	line, ref := lineID{number: 2}, lineID{number: 2, ref: []byte(`"17"`)}
	counts := presence.Counts{Written: 2, Gone: 1}
	here := fanout.Outcome{State: presence.Unknown, Instances: 1, Partial: true}
	for _, c := range []struct {
		answer pushAnswer
		want   string
	}{
		{pushAnswer{id: "1", user: "alice", outcome: fanout.Outcome{State: presence.Online, Instances: 2}},
			`{"id":"1","user":"alice","state":"online","instances":2}`},
		{pushAnswer{user: `"<`, outcome: fanout.Outcome{State: presence.Offline}},
			`{"user":"\"<","state":"offline","instances":0}`},
		{pushAnswer{user: "bob", outcome: here},
			`{"user":"bob","state":"unknown","instances":1,"partial":true}`},
		{pushAnswer{user: "bob", wait: fanout.Written, outcome: fanout.Outcome{Sockets: counts}},
			`{"user":"bob","state":"offline","instances":0,` +
				`"sockets":{"written":2,"acked":0,"dropped":0,"gone":1,"unanswered":0}}`},
		{pushAnswer{user: "bob", outcome: fanout.Outcome{Err: fanout.ErrBusy}},
			`{"user":"bob","state":"unknown","instances":0,"error":"busy"}`},
		{pushAnswer{user: "bob", outcome: fanout.Outcome{Err: errors.New("ours")}},
			`{"user":"bob","state":"unknown","instances":0,"error":"internal"}`},
		{pushAnswer{line: line, id: "1", user: "bob"},
			`{"line":2,"id":"1","user":"bob","state":"offline","instances":0}`},
		{pushAnswer{line: ref, id: "1", user: "bob"},
			`{"ref":"17","id":"1","user":"bob","state":"offline","instances":0}`},
	} {
		if got := string(c.answer.appendTo(nil)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestServer_EmitsToItsAudienceAndSaysWhatBecameOfIt(t *testing.T) {
	f := &fakes{}
	s := startServer(t, f, nil)
	for _, c := range []struct {
		path    string
		want    fanout.Emit
		outcome fanout.Outcome
		err     error
		status  int
		body    string
	}{
		{"/emit/all", fanout.Emit{To: presence.Everybody}, fanout.Outcome{Instances: 3}, nil,
			200, `{"id":"ID","instances":3}`},
		{"/emit/authenticated?wait=acked", fanout.Emit{To: presence.Authenticated, Wait: fanout.Acked},
			fanout.Outcome{Instances: 1, Partial: true, Sockets: presence.Counts{Acked: 1}}, nil,
			200, `{"id":"ID","instances":1,"partial":true,` +
				`"sockets":{"written":0,"acked":1,"dropped":0,"gone":0,"unanswered":0}}`},
		{"/emit/all?wait=written", fanout.Emit{Wait: fanout.Written},
			fanout.Outcome{}, fanout.ErrTooManyRequests,
			503, `{"status":503,"title":"Service Unavailable","code":"busy",` +
				`"detail":"` + problemOf(fanout.ErrTooManyRequests).Detail + `"}`},
	} {
		f.bus.EmitFn = func(_ context.Context, emit fanout.Emit) (fanout.Outcome, error) {
			frame := `{"event":"x","data":[1],"id":"` + emit.ID.String() + `"}`
			if emit.To != c.want.To || emit.Wait != c.want.Wait || string(emit.Frame) != frame {
				t.Errorf("%s: %+v, %s", c.path, emit, emit.Frame)
			}
			return c.outcome, c.err
		}
		wantAnswer(t, s.ask(t, "POST", c.path, `{"event":"x","data":[1]}`, nil), c.status, c.body)
	}
}

func TestServer_KicksAUserOrOneSocketAndSaysHowManyClosed(t *testing.T) {
	spared := uuid.New()
	f := &fakes{bus: fakeBus{
		KickFn: func(_ context.Context, user string, except uuid.UUID, reason string) fanout.Outcome {
			if user != "a/b" || except != spared || reason != "fraud" {
				t.Errorf("kick %s except %s: %s", user, except, reason)
			}
			return fanout.Outcome{Sockets: presence.Counts{Written: 2, Unanswered: 1}, Partial: true}
		},
		KickSocketFn: func(_ context.Context, id uuid.UUID, reason string) (fanout.Outcome, error) {
			if id != spared || reason != "kicked" {
				t.Errorf("kick %s: %s", id, reason)
			}
			return fanout.Outcome{}, nil
		},
	}}
	s := startServer(t, f, nil)
	got := s.ask(t, "DELETE", "/presence/a%2Fb?reason=fraud&except="+spared.String(), "", nil)
	wantAnswer(t, got, 200, `{"closed":2,"unanswered":1,"partial":true}`)
	wantAnswer(t, s.ask(t, "DELETE", "/sockets/"+spared.String(), "", nil), 200, `{"closed":0}`)

	f.bus.KickFn = func(context.Context, string, uuid.UUID, string) fanout.Outcome {
		return fanout.Outcome{Err: fanout.ErrUnreachable}
	}
	wantProblem(t, s.ask(t, "DELETE", "/presence/alice", "", nil), 503, "redis_unreachable", "try again")
}

func TestServer_TellsPresenceAsTheDirectoryHasIt(t *testing.T) {
	alice := presence.User{
		Name: "alice", State: presence.Online, Since: second, LastSeen: 2 * second,
		Sockets: 1, Instances: []string{"one"},
	}
	const aliceJSON = `"user":"alice","state":"online","since":"1970-01-01T00:00:01.000Z",` +
		`"lastSeen":"1970-01-01T00:00:02.000Z","sockets":1,"instances":["one"]`
	const answer = `{"users":[{` + aliceJSON + `}],"asOf":"1970-01-01T00:00:03.000Z","stale":true}`
	const asOf = `"asOf":"1970-01-01T00:00:03.000Z"`
	var asked []string
	s := startServer(t, &fakes{directory: fakeDirectory{
		LookupFn: func(_ context.Context, users []string) presence.Answer {
			asked = users
			return presence.Answer{Users: []presence.User{alice}, AsOf: 3 * second, Stale: true}
		},
		PageFn: func(_ context.Context, cursor string, limit int) (presence.Answer, error) {
			if cursor != "c" || limit != 7 {
				t.Errorf("a page of %d from %q", limit, cursor)
			}
			return presence.Answer{Users: []presence.User{}, Next: "d", AsOf: 3 * second}, nil
		},
		CountFn: func(context.Context) (int64, presence.Moment, bool) { return 12, 3 * second, false },
	}}, nil)
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/presence/alice", "", `{` + aliceJSON + `,` + asOf + `,"stale":true}`},
		{"GET", "/presence?user=alice", "", answer},
		{"POST", "/presence", `{"users":["alice"]}`, answer},
	} {
		asked = nil
		wantAnswer(t, s.ask(t, c.method, c.path, c.body, nil), 200, c.want)
		if len(asked) != 1 || asked[0] != "alice" {
			t.Errorf("%s %s asked about %q", c.method, c.path, asked)
		}
	}
	wantAnswer(t, s.ask(t, "GET", "/presence?limit=7&cursor=c", "", nil), 200,
		`{"users":[],"next":"d",`+asOf+`,"stale":false}`)
	wantAnswer(t, s.ask(t, "GET", "/presence/count", "", nil), 200, `{"present":12,`+asOf+`,"stale":false}`)
}

func TestServer_AuditsEveryLiveInstanceAndAlwaysItself(t *testing.T) {
	f := &fakes{directory: fakeDirectory{InstancesFn: func(context.Context) ([]presence.Record, error) {
		return []presence.Record{
			{ID: "left", State: "left"}, {ID: "two", State: "draining"}, {ID: "one", State: "lost"},
		}, nil
	}}}
	f.bus.AuditFn = func(_ context.Context, instances []string) ([]presence.Audit, []string, error) {
		if len(instances) != 2 || instances[0] != "two" || instances[1] != "one" {
			t.Errorf("asked %q", instances)
		}
		return []presence.Audit{{Instance: "two"}, {Instance: "one"}}, nil, nil
	}
	s := startServer(t, f, nil)
	const zero = `"users":0,"entries":0,"missing":0,"ghosts":0,"oldestSeconds":0`
	wantAnswer(t, s.ask(t, "GET", "/audit", "", nil), 200,
		`{"instances":[{"instance":"one",`+zero+`},{"instance":"two",`+zero+`}],"unanswered":[]}`)

	f.directory.InstancesFn = func(context.Context) ([]presence.Record, error) {
		return nil, errors.New("away")
	}
	for _, path := range []string{"/audit", "/instances"} {
		wantProblem(t, s.ask(t, "GET", path, "", nil), 503, "redis_unreachable", "try again")
	}
}

func TestServer_IsReadyUnlessItDrainsOrReceivesNothing(t *testing.T) {
	f := &fakes{}
	s := startServer(t, f, nil)
	wantAnswer(t, s.ask(t, "GET", "/readyz", "", nil), 200, `{"status":"ready"}`)
	f.mirror.reason = "no lease"
	wantAnswer(t, s.ask(t, "GET", "/readyz", "", nil), 200, `{"status":"ready","warnings":["no lease"]}`)
	f.bus.reason = "deaf"
	s.draining.Store(true)
	got := s.ask(t, "GET", "/readyz", "", nil)
	wantProblem(t, got, 503, "not_ready", "see reasons")
	if ready := s.Readiness(); ready != (Readiness{Draining: true, NotReceiving: true}) || ready.Ready() {
		t.Errorf("%+v", ready)
	}
	wantAnswer(t, s.ask(t, "GET", "/healthz", "", nil), 200, `{"status":"alive"}`)
	wantProblem(t, s.ask(t, "GET", "/ws", "", nil), 503, "draining", "connect again")
}

func TestServer_LimitsHowLongARequestMayTake(t *testing.T) {
	f := &fakes{}
	s := startServer(t, f, nil)
	for path, limit := range map[string]time.Duration{
		"/emit/all": defaultWait, "/emit/all?timeout=100ms": 100 * time.Millisecond,
	} {
		f.bus.EmitFn = func(ctx context.Context, _ fanout.Emit) (fanout.Outcome, error) {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > limit {
				t.Errorf("%s may take until %v", path, end)
			}
			return fanout.Outcome{}, nil
		}
		s.ask(t, "POST", path, `{"event":"x"}`, nil)
	}
}

func TestServer_APanicIsAnErrorOfItsRequestAlone(t *testing.T) {
	s := startServer(t, &fakes{}, nil) // whose functions are all nil
	wantProblem(t, s.ask(t, "POST", "/emit/all", `{"event":"x"}`, nil), 500, "internal", "logged")
	wantAnswer(t, s.ask(t, "GET", "/healthz", "", nil), 200, `{"status":"alive"}`)
}
