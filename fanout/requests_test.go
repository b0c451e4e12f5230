package fanout

import (
	"context"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestPendingRequests_DropAndCountALateReply(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a, _, alice := startWithAlice(t, server)
		open := alice.shut()
		ticket := a.begin(Push{User: "alice", Frame: []byte("x"), Wait: Written})
		redistest.Await(t, "the push to be routed", func() bool { return stateOf(ticket) == completed })
		ctx, giveUp := context.WithCancel(t.Context())
		giveUp()
		if got := ticket.Wait(ctx)[0]; got.Sockets != (presence.Counts{Unanswered: 1}) {
			t.Errorf("%+v", got)
		}
		if _, requests := a.bus.Waiting(); requests != 0 {
			t.Errorf("%d requests are pending", requests)
		}
		open()
		redistest.Await(t, "the late reply to be counted", func() bool { return a.bus.LateReplies() == 1 })
	})
}

func TestPendingRequests_KeepRoomForOtherUsersAndForBackends(t *testing.T) {
	var r pendingRequests
	fill := func(user string) (registered int) {
		for {
			switch _, err := r.register(nil, user); err {
			case nil:
				registered++
			case ErrTooManyRequests:
				return registered
			default:
				t.Fatal(err)
			}
		}
	}
	want := func(whose string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d requests, want %d", whose, got, want)
		}
	}
	want("mallory's clients", fill("mallory"), maxUserRequests)
	want("alice's clients", fill("alice"), maxUserRequests)
	for n := range maxClientRequests / maxUserRequests {
		fill(userOf(n))
	}
	want("all clients", r.len(), maxClientRequests)
	want("backends", fill(""), maxRequests-maxClientRequests)
	r.remove(1) // one of mallory's
	want("mallory's clients again", fill("mallory"), 1)
	for number := range r.last + 1 {
		r.remove(number)
	}
	if r.len() != 0 || r.clients != 0 || len(r.byUser) != 0 {
		t.Errorf("%d requests, %d of clients of %d users are left", r.len(), r.clients, len(r.byUser))
	}
}

func TestBus_CountsRequestsThatClientsCauseByTheirUser(t *testing.T) {
	b := newStill().Bus
	pushes := []Push{{User: "alice", Wait: Handed, FromClient: true}, {User: "bob", Wait: Written}}
	for _, push := range pushes {
		if err := b.collectReports(&newTicket([]Push{push}, time.Now(), nil).pushes[0]); err != nil {
			t.Fatal(err)
		}
	}
	if r := &b.requests; r.len() != 2 || r.byUser["alice"] != 1 || len(r.byUser) != 1 {
		t.Errorf("%d requests, of clients %v", r.len(), r.byUser)
	}
}
