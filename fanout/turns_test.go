package fanout

import (
	"context"
	"errors"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestASocketThatHoldsUpAPushHoldsUpNoOtherUsersPush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		turn := a.router.lanes[0].turnOf("alice")
		other := "bob"
		for a.router.lanes[0].turnOf(other) == turn {
			other += "b"
		}
		alice, bob := a.join("alice"), a.join(other)
		open := alice.shut()
		late := make(chan Outcome, 1)
		go func() { late <- a.router.Push(context.Background(), Push{User: "alice", Frame: []byte("late")}) }()
		eventually(t, "the push to be held up", func() bool {
			if turn.TryLock() {
				turn.Unlock()
				return false
			}
			return true
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		context.AfterFunc(ctx, open) // or this would wait for ever, if it fails
		for range batchMost + 1 {    // more than a call takes
			got := a.router.Push(ctx, Push{User: other, Frame: []byte("x")})
			if want := (Outcome{State: presence.Online, Instances: 1}); got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
		}
		bob.await(batchMost + 1)
		open()
		if got := <-late; got.Err != nil {
			t.Error(got.Err)
		}
		alice.wantFrames("late")
	})
}

func TestAPushIsGivenUpWhenItsCallerStopsWaiting(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	first := a.router.Begin([]Push{{User: "alice", Frame: []byte("first")}}, time.Now().Add(patience))
	eventually(t, "the first push to hold the lane", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		return first.orders[0].state == sent
	})
	patient := a.router.Begin([]Push{{User: "alice", Frame: []byte("patient")}}, time.Now().Add(patience))
	for range 2 { // one that comes first when the timer runs, and one for which it must run again
		hasty := a.router.Begin([]Push{{User: "alice", Frame: []byte("hasty")}}, time.Now().Add(time.Millisecond))
		if got := hasty.Wait(t.Context())[0]; !errors.Is(got.Err, context.DeadlineExceeded) {
			t.Errorf("%+v", got)
		}
	}
	server.Resume()
	for _, ticket := range []*Ticket{first, patient} {
		if got := ticket.Wait(t.Context())[0]; got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	alice.wantFrames("first", "patient")
}
