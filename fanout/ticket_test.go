package fanout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
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

func TestTicket_WaitEndsWhenItsTimeIsOverOrItsContextEnds(t *testing.T) {
	for name, c := range map[string]struct {
		until, context time.Duration
		want           error
	}{
		"its time is over": {time.Second, time.Minute, context.DeadlineExceeded},
		"its context ends": {time.Minute, time.Second, context.Canceled},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(c.context, cancel)
			began := time.Now()
			ticket := newTicket([]Push{{User: "alice"}, {User: "bob"}}, began.Add(c.until), nil)
			for _, outcome := range ticket.Wait(ctx) {
				if outcome.Err != c.want {
					t.Errorf("%s: %+v, want %v", name, outcome, c.want)
				}
			}
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s: it took %v, want 1s", name, took)
			}
			if ticket.pushes[0].claim(began) {
				t.Errorf("%s: what was given up would be sent", name)
			}
		})
	}
}

func TestOutcome_CountsThisInstance(t *testing.T) {
	elsewhere := Outcome{State: presence.Online, Instances: 2}
	partial := Outcome{State: presence.Unknown, Instances: 1, Partial: true}
	for name, c := range map[string]struct {
		routed Outcome
		local  int
		want   Outcome
	}{
		"nothing here":               {elsewhere, 0, elsewhere},
		"sockets here too":           {elsewhere, 3, Outcome{State: presence.Online, Instances: 3}},
		"sockets here alone":         {Outcome{}, 1, Outcome{State: presence.Online, Instances: 1}},
		"Redis is away":              {Outcome{Err: ErrUnreachable}, 0, Outcome{Err: ErrUnreachable}},
		"Redis is away, some here":   {Outcome{Err: ErrUnreachable}, 1, partial},
		"given up, but in time here": {Outcome{Err: context.Canceled}, 1, partial},
	} {
		if got := c.routed.withLocal(c.local); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
