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
	ticket := a.bus.Begin(repeated(Push{User: "alice", Frame: frame}, queueBytes/large+3), time.Now().Add(redistest.Patience))
	server.Resume()
	took := 0
	for n, outcome := range ticket.Wait(t.Context()) {
		switch {
		case outcome.Err == nil:
			took++
		case outcome.Err != ErrBusy || n < queueBytes/large:
			t.Errorf("push %d: %+v", n, outcome)
		}
	}
	if took == len(ticket.pushes) {
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
	for range maxRequests {
		if _, err := a.bus.requests.register(nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.bus.push(t.Context(), Push{User: "alice", Frame: []byte("x"), Wait: Written}); got.Err != ErrAsking {
		t.Errorf("push: %+v", got)
	}
	if got := a.bus.Kick(t.Context(), "alice", uuid.Nil, ""); got.Err != ErrAsking {
		t.Errorf("kick: %+v", got)
	}
	_, emitted := a.bus.Emit(t.Context(), Emit{Frame: []byte("x"), Wait: Written})
	_, kicked := a.bus.KickSocket(t.Context(), uuid.New(), "")
	_, _, audited := a.bus.Audit(t.Context(), []string{"a"})
	for name, err := range map[string]error{"emit": emitted, "kick of a socket": kicked, "audit": audited, "catching up": a.bus.Barrier(t.Context())} {
		if err != ErrAsking {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.wantPush("alice", "who does not ask is served", presence.Online, 1)
	alice.wantFrames("who does not ask is served")
}

func TestRepliesThatFindNoRoomAreDroppedAndCounted(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	idle := newReplyBatcher(a.bus.redis, a.bus.log, &a.bus.Dropped.Replies)
	idle.send("to:b", envelope{frame: make([]byte, replyBytes)}) // nobody sends it
	idle.send("to:b", envelope{})
	if got := a.bus.Dropped.Replies.Load(); got != 1 {
		t.Errorf("%d were counted", got)
	}
	idle.flush(t.Context())
	idle.send("to:b", envelope{})
	if got := a.bus.Dropped.Replies.Load(); got != 1 {
		t.Errorf("with room again %d were counted", got)
	}
}

func TestOnlySoManyAuditsAreUnderWay(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	a.bus.auditing.Store(maxAudits)
	a.bus.dispatch(t.Context(), envelope{kind: kindAudit, request: 1, sender: "b"})
	if got := a.bus.Dropped.Audits.Load(); got != 1 || a.bus.auditing.Load() != maxAudits {
		t.Errorf("%d were counted, %d are under way", got, a.bus.auditing.Load())
	}
	a.bus.auditing.Store(0)
	if audits, _, err := a.bus.Audit(t.Context(), []string{"a"}); err != nil || len(audits) != 1 {
		t.Errorf("with room again: %v, %v", audits, err)
	}
}
