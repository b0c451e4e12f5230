package fanout

import (
	"context"
	"testing"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestUserLocks_ASocketThatHoldsUpAPushHoldsUpNoOtherUsersPush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		l := a.bus.routers[0]
		alice := a.join("alice")
		open := alice.shut()
		late := make(chan Outcome, 1)
		go func() { late <- a.bus.push(context.Background(), Push{User: "alice", Frame: []byte("late")}) }()
		redistest.Await(t, "the push to be held up", func() bool {
			l.queue.mu.Lock()
			defer l.queue.mu.Unlock()
			return l.queue.admitted == 1
		})
		ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
		defer cancel()
		context.AfterFunc(ctx, open) // or this would wait for ever, if it fails
		// more than a batch takes, and so many users that some would share a lock if locks were shared
		for n := range batchMost + 1 {
			other := a.join(userOf(n))
			got := a.bus.push(ctx, Push{User: other.User, Frame: []byte("x")})
			if want := (Outcome{State: presence.Online, Instances: 1}); got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
			other.wantFrames("x")
		}
		select {
		case got := <-late:
			t.Fatalf("the others were served after alice, whose push ended with %+v", got)
		default:
		}
		open()
		if got := <-late; got.Err != nil {
			t.Error(got.Err)
		}
		alice.wantFrames("late")
		l.locks.mu.Lock()
		defer l.locks.mu.Unlock()
		if len(l.locks.users) > 0 {
			t.Errorf("%d users are remembered for ever", len(l.locks.users))
		}
	})
}
