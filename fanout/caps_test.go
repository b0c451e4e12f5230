package fanout

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestALaneRefusesWhatIsTooLargeForItsQueue(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	const large = 1 << 20
	frame := make([]byte, large) // one for all: it is the same memory
	ticket := a.router.Begin(repeated(Push{User: "alice", Frame: frame}, laneBytes/large+3), time.Now().Add(redistest.Patience))
	server.Resume()
	took := 0
	for n, outcome := range ticket.Wait(t.Context()) {
		switch {
		case outcome.Err == nil:
			took++
		case outcome.Err != ErrBusy || n < laneBytes/large:
			t.Errorf("push %d: %+v", n, outcome)
		}
	}
	if took == len(ticket.orders) {
		t.Errorf("all %d were taken", took)
	}
	alice.take(took)
	a.wantPush("alice", "and there is room again", presence.Online, 1)
}

func repeated(push Push, times int) []Push {
	pushes := make([]Push, times)
	for n := range pushes {
		pushes[n] = push
	}
	return pushes
}

func TestOnlySoManyQuestionsWaitForReplies(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	for range maxAsks {
		if _, err := a.receiver.asks.begin(nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.router.Push(t.Context(), Push{User: "alice", Frame: []byte("x"), Wait: Written}); got.Err != ErrAsking {
		t.Errorf("push: %+v", got)
	}
	if got := a.router.Kick(t.Context(), "alice", uuid.Nil, ""); got.Err != ErrAsking {
		t.Errorf("kick: %+v", got)
	}
	_, emitted := a.router.Emit(t.Context(), Emit{Frame: []byte("x"), Wait: Written})
	_, kicked := a.router.KickSocket(t.Context(), uuid.New(), "")
	_, _, audited := a.router.Audit(t.Context(), []string{"a"})
	for name, err := range map[string]error{"emit": emitted, "kick of a socket": kicked, "audit": audited, "catching up": a.receiver.CatchUp(t.Context())} {
		if err != ErrAsking {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.wantPush("alice", "who does not ask is served", presence.Online, 1)
	alice.wantFrames("who does not ask is served")
}

func TestRepliesThatFindNoRoomAreDroppedAndCounted(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	idle := newReplier(a.router.redis, a.router.log, &a.receiver.Dropped.Replies)
	idle.send("to:b", envelope{frame: make([]byte, repliesBytes)}) // nobody sends it
	idle.send("to:b", envelope{})
	if got := a.receiver.Dropped.Replies.Load(); got != 1 {
		t.Errorf("%d were counted", got)
	}
	idle.flush(t.Context())
	idle.send("to:b", envelope{})
	if got := a.receiver.Dropped.Replies.Load(); got != 1 {
		t.Errorf("with room again %d were counted", got)
	}
}

func TestOnlySoManyAuditsAreUnderWay(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	a.receiver.auditing.Store(maxAudits)
	a.receiver.deliver(t.Context(), envelope{kind: kindAudit, ask: 1, sender: "b"})
	if got := a.receiver.Dropped.Questions.Load(); got != 1 || a.receiver.auditing.Load() != maxAudits {
		t.Errorf("%d were counted, %d are under way", got, a.receiver.auditing.Load())
	}
	a.receiver.auditing.Store(0)
	if audits, _, err := a.router.Audit(t.Context(), []string{"a"}); err != nil || len(audits) != 1 {
		t.Errorf("with room again: %v, %v", audits, err)
	}
}
