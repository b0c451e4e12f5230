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

func TestTicket_WaitEndsWithItsContextAndNothingIsSentAfterThat(t *testing.T) {
	ticket := newTicket([]Push{{User: "alice"}, {User: "bob"}}, time.Now().Add(time.Hour), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n, outcome := range ticket.Wait(ctx) {
		if outcome.Err != context.Canceled || ticket.pushes[n].markSent(time.Now()) {
			t.Errorf("push %d: %+v, or it would be sent", n, outcome)
		}
	}
}

func TestTicket_IsAnsweredInTimeWhileACallHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newStill().routers[0]
		r.calling.Store(true)
		r.late.Reset(lateCheck)
		began := time.Now()
		ticket := newTicket([]Push{{User: "alice"}}, began.Add(time.Second), nil)
		r.begin(&ticket.pushes[0])
		if got := ticket.Wait(t.Context())[0]; got.Err != context.DeadlineExceeded {
			t.Errorf("%+v", got)
		}
		if took := time.Since(began); took < time.Second || took > time.Second+lateCheck {
			t.Errorf("it took %v", took)
		}
		r.calling.Store(false)
		time.Sleep(lateCheck) // of the bubble's clock: the timer runs once more, and then no more
		synctest.Wait()
	})
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
