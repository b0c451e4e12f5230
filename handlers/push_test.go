package handlers

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/fanout"
	"rollcall/presence"
)

const idleShards = 5 // so that all their queues together have more room than requests may wait for reports

// idle is a server whose bus is a real one, without a Redis. It delivers to sockets on this instance. All
// else fails once the bus runs (see startAway), and waits if it does not, as if Redis did not answer.
type idle struct {
	*Server
	bus    *fanout.Bus
	mirror *presence.Mirror
}

func startIdle(t *testing.T) idle {
	t.Helper()
	o := testOptions(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
	})
	if err == nil {
		t.Fatal("somebody listens on port 1")
	}
	t.Cleanup(client.Close)
	redis := presence.Redis{
		Client: client, Keys: presence.NewKeys("x", idleShards), Lease: time.Second, Timeout: time.Second,
	}
	mirror, local := presence.NewMirror(presence.MirrorOptions{Redis: redis, Log: o.Log})
	bus := fanout.NewBus(fanout.Options{Redis: redis, Sockets: local, Mirror: mirror, Log: o.Log})
	o.Mirror, o.Directory, o.Bus = mirror, mirror.Directory(), bus
	return idle{NewServer(o), bus, mirror}
}

// startAway starts an idle server whose bus runs, and finds nobody where Redis should listen.
func startAway(t *testing.T) idle {
	t.Helper()
	s := startIdle(t)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		s.bus.Run(ctx)
		close(ran)
	}()
	t.Cleanup(func() {
		stop()
		<-ran
	})
	return s
}

// fakeConn notes what it is sent.
type fakeConn struct {
	presence.Conn
	frames []string
}

func (f *fakeConn) Send(messages ...presence.Message) bool {
	for _, message := range messages {
		f.frames = append(f.frames, string(message.Frame))
		if message.Tracker != nil {
			message.Tracker.Report(presence.Written)
		}
	}
	return true
}

// connect adds a socket of a user.
func (s idle) connect(t *testing.T, user string) (uuid.UUID, *fakeConn) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // not to wait for Redis
	socket := &presence.Socket{ID: uuid.New(), User: user, Conn: &fakeConn{}}
	s.mirror.Join(ctx, socket)
	return socket.ID, socket.Conn.(*fakeConn)
}

// waiting is how many pushes wait for Redis.
func (s idle) waiting() int {
	pushes, _ := s.bus.Waiting()
	return pushes
}

// fill pushes until no push finds room.
func (s idle) fill(wait fanout.Wait) {
	for n, refused := 0, 0; refused < 1000; n++ { // in a row: all shards are full
		before := s.waiting()
		s.bus.Begin([]fanout.Push{{User: fmt.Sprint(n), Wait: wait}}, time.Now().Add(time.Hour))
		if refused++; s.waiting() > before {
			refused = 0
		}
	}
}

func TestPush_ReachesSocketsHereWithoutRedisAndSaysPartial(t *testing.T) {
	s := startAway(t)
	_, alice := s.connect(t, "alice")
	const answer = `{"id":"ID","user":"alice","state":"unknown","instances":1,"partial":true`
	for _, c := range []struct{ path, want string }{
		{"/push/alice?timeout=1s", answer + `}`},
		{"/push/alice?timeout=1s&wait=written",
			answer + `,"sockets":{"written":1,"acked":0,"dropped":0,"gone":0,"unanswered":0}}`},
	} {
		alice.frames = nil
		wantAnswer(t, s.ask(t, "POST", c.path, `{"event":"x","data":{"a":"\ud83e"}}`, nil), 200, c.want)
		frame := regexp.MustCompile(`^\{"event":"x","data":\{"a":"\\ud83e"\},"id":"[-0-9a-f]{36}"\}$`)
		if len(alice.frames) != 1 || !frame.MatchString(alice.frames[0]) {
			t.Errorf("alice got %q", alice.frames)
		}
	}
	wantProblem(t, s.ask(t, "POST", "/push/bob?timeout=1s", `{"event":"x"}`, nil),
		503, "redis_unreachable", "try again in a second")
}

func TestPush_LeavesOutTheExcludedSocket(t *testing.T) {
	s := startAway(t)
	id, excluded := s.connect(t, "alice")
	_, other := s.connect(t, "alice")
	s.ask(t, "POST", "/push/alice?timeout=1s", `{"event":"x","exclude":"`+id.String()+`"}`, nil)
	if len(excluded.frames) != 0 || len(other.frames) != 1 {
		t.Errorf("the excluded socket got %q, the other %q", excluded.frames, other.frames)
	}
}

func TestPush_ToManyReachesEachOnceAndAnswersInTheOrderAsked(t *testing.T) {
	s := startAway(t)
	_, alice := s.connect(t, "alice")
	got := s.ask(t, "POST", "/push?timeout=1s", `{"event":"x","users":["alice","bob","alice"]}`, nil)
	const aliceAnswer = `{"user":"alice","state":"unknown","instances":1,"partial":true}`
	const bobAnswer = `{"user":"bob","state":"unknown","instances":0,"error":"redis_unreachable"}`
	wantAnswer(t, got, 200, `{"id":"ID","results":[`+aliceAnswer+`,`+bobAnswer+`,`+aliceAnswer+`]}`)
	if len(alice.frames) != 1 {
		t.Errorf("alice got %q", alice.frames)
	}
}

func TestPush_ThatFindsNoRoomIsToldWhichAndWhenToComeAgain(t *testing.T) {
	for name, c := range map[string]struct {
		fill   fanout.Wait
		path   string
		detail string
	}{
		"pushes":            {fanout.Routed, "/push/alice", "push queue is full"},
		"reports of pushes": {fanout.Written, "/push/alice?wait=written", "delivery reports"},
		"reports of emits":  {fanout.Written, "/emit/all?wait=acked", "delivery reports"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startIdle(t)
			s.fill(c.fill)
			got := s.ask(t, "POST", c.path, `{"event":"x"}`, nil)
			wantProblem(t, got, 503, "busy", c.detail)
			if after := got.Header().Get("Retry-After"); after != "1" {
				t.Errorf("Retry-After: %q", after)
			}
		})
	}
}

func TestStream_AnswersEachLineByItsRefOrNumber(t *testing.T) {
	s := startAway(t)
	_, alice := s.connect(t, "alice")
	ndjson := http.Header{"Content-Type": {"application/x-ndjson"}}
	long := strings.Repeat("x", 2000)
	for name, c := range map[string]struct{ line, begins, says string }{
		"a ref":          {`{"user":"alice","event":"x","ref":"17"}`, `{"ref":"17","id":`, `"instances":1`},
		"no ref":         {`{"user":"alice","event":"x"}`, `{"line":1,"id":`, `"instances":1`},
		"nobody":         {`{"user":"bob","event":"x"}`, `{"line":1,"id":`, `"error":"redis_unreachable"`},
		"no event":       {`{"user":"alice","ref":"a"}`, `{"ref":"a","error":"event: `, "is empty"},
		"no user":        {`{"event":"x"}`, `{"line":1,"error":"user: `, "is empty"},
		"cut":            {`{"user":"alice"`, `{"line":1,"error":"`, "not JSON: unexpected EOF"},
		"an array":       {`[]`, `{"line":1,"error":"`, "want a JSON object, not an array"},
		"more":           {`{"user":"a","event":"x","y":1,"ref":"a"}`, `{"ref":"a","error":`, "unknown"},
		"reserved":       {`{"user":"alice","event":"rollcall:x"}`, `{"line":1,"error":"event: `, "reserved"},
		"half of a pair": {`{"user":"x\ud800","event":"x"}`, `{"line":1,"error":"user: `, "surrogate pair"},
		"a numeric ref":  {`{"user":"a","event":"x","ref":7}`, `{"line":1,"error":"ref: `, "want a string"},
		"not UTF-8":      {"{\"user\":\"alice\",\"event\":\"\xff\"}", `{"line":1,"error":"`, "not UTF-8"},
		"much data":      {`{"user":"a","event":"x","data":"` + long + `"}`, `{"line":1,"error":`, "is 1024"},
		"a long line":    {long + long, `{"line":1,"error":"`, "longer than a push may be"},
	} {
		got := s.ask(t, "POST", "/push?answers=after&timeout=1s", c.line, ndjson).Body.String()
		answer, end, _ := strings.Cut(got, "\n")
		if !strings.HasPrefix(answer, c.begins) || !strings.Contains(answer, c.says) ||
			end != `{"end":"complete","lines":1}`+"\n" {
			t.Errorf("%s: got %s, want %s… %s", name, got, c.begins, c.says)
		}
	}
	if len(alice.frames) != 2 {
		t.Errorf("alice got %q", alice.frames)
	}
	// a blank line is counted and not answered
	got := s.ask(t, "POST", "/push?answers=after", "\n \n{", ndjson).Body.String()
	if !strings.HasPrefix(got, `{"line":3,`) || !strings.Contains(got, "\n"+`{"end":"complete","lines":3}`) {
		t.Errorf("got %s", got)
	}
}

func TestStream_IsRefusedIfTooManyAreOpen(t *testing.T) {
	s := startIdle(t)
	s.streams.Store(maxStreams)
	got := s.ask(t, "POST", "/push", "", http.Header{"Content-Type": {"application/x-ndjson"}})
	wantProblem(t, got, 503, "busy", "256 streams are open here")
	if open := s.streams.Load(); open != maxStreams || got.Header().Get("Retry-After") != "1" {
		t.Errorf("%d are open, %v", open, got.Header())
	}
}
