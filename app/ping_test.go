package main

import (
	"context"
	"encoding/json"
	"testing"

	"rollcall/handlers/sockets"
)

func TestPing_IsAnswered(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := dialRaw(t, a, "alice")
	var welcome struct {
		Limits struct{ HeartbeatMs int }
	}
	if f := alice.next(); json.Unmarshal(f.Data, &welcome) != nil || welcome.Limits.HeartbeatMs != 25_000 {
		t.Errorf("the welcome is %s, want a heartbeatMs of 25000", f.Data)
	}
	alice.send(`{"event":"rollcall:ping"}`)
	if f := alice.wantFrame("rollcall:pong", "{}"); f.Ref != "" || f.ID != "" {
		t.Errorf("got the ref %q and the id %q, want none", f.Ref, f.ID)
	}
	alice.send(`{"event":"rollcall:ping","data":[1],"ref":"7"}`)
	if f := alice.wantFrame("rollcall:pong", "{}"); f.Ref != "7" {
		t.Errorf("got the ref %q, want 7", f.Ref)
	}
	alice.send(`{"event":"rollcall:pong"}`)
	alice.wantError("reserved_event", "")
}

// slowly starts an instance whose handler "slow" answers 1, and then works until the test ends it, or until
// the test is over.
func slowly(t *testing.T) (a *App, end func()) {
	t.Helper()
	ended := make(chan struct{})
	a = withHandlers(t, map[string]sockets.Handler{
		"slow": func(ctx context.Context, _ sockets.Request, a *sockets.Responder) error {
			if err := a.ReplyOnly(1); err != nil {
				return err
			}
			select {
			case <-ended:
			case <-t.Context().Done():
			}
			return a.ReplyOnly(2)
		},
	})
	return a, func() { close(ended) }
}

func TestPing_IsAnsweredWhileAHandlerWorks(t *testing.T) {
	t.Parallel()
	a, end := slowly(t)
	alice := connect(t, a, "alice")
	alice.send(`{"event":"slow"}`)
	alice.wantFrame("slow", "1")
	alice.send(`{"event":"rollcall:ping","ref":"1"}`)
	alice.wantFrame("rollcall:pong", "{}")
	alice.send(`{"event":"rollcall:ping","ref":"2"}`)
	alice.send(`{"event":"events"}`) // has to wait for its turn
	alice.wantFrame("rollcall:pong", "{}")
	end()
	alice.wantFrame("slow", "2")
	for _, answer := range []string{"1", "2", "3"} {
		alice.wantFrame("events", answer)
	}
}

func TestSocket_UserWhoLeavesWhileAHandlerWorksIsOfflineAtOnce(t *testing.T) {
	t.Parallel()
	a, end := slowly(t)
	alice := connect(t, a, "alice")
	alice.send(`{"event":"slow"}`)
	alice.wantFrame("slow", "1")
	alice.leave()
	wantState(t, a, "alice", "offline", 0)
	end()
}
