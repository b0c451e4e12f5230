package fanout

import (
	"context"
	"errors"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestTicket_APushGivenUpBeforeItWasSentIsNeverSent(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	first := a.holdQueue("alice", "first")
	gaveUp, giveUp := context.WithCancel(t.Context())
	giveUp()
	if got := a.bus.push(gaveUp, Push{User: "alice", Frame: []byte("second")}); got.Err == nil {
		t.Errorf("given up: %+v", got)
	}
	server.Resume()
	if got := first.Wait(t.Context())[0]; got.Err != nil {
		t.Fatal(got.Err)
	}
	a.wantPush("alice", "third", presence.Online, 1)
	alice.wantFrames("first", "third")
}

func TestTicket_GivesAPushUpWhenItsTimeIsOver(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	first := a.holdQueue("alice", "first")
	patient := a.begin(Push{User: "alice", Frame: []byte("patient")})
	var hasty []*Ticket
	for _, wait := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
		push := Push{User: "alice", Frame: []byte("hasty")}
		hasty = append(hasty, a.bus.Begin([]Push{push}, time.Now().Add(wait)))
	}
	for _, ticket := range hasty {
		if got := ticket.Wait(t.Context())[0]; !errors.Is(got.Err, context.DeadlineExceeded) {
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
