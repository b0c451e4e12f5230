package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// echo is a connection of which each write causes another push to the same user, until the test ends: this
// flood never runs dry.
type echo struct {
	node *node
	ctx  context.Context
}

func (e echo) Send(...presence.Message) bool {
	if e.ctx.Err() == nil {
		flood := envelope{kind: kindPush, user: "mallory", frame: []byte("flood")}.append(nil)
		e.node.bus.receive(e.ctx, rueidis.PubSubMessage{Message: string(flood)})
	}
	return true
}

func (echo) Close(int, string) {}
func (echo) Reachable()        {}

func TestPushesToOthersAreWrittenWhileOneUserIsFlooded(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		ctx, stop := context.WithCancel(t.Context())
		t.Cleanup(stop)
		for range 20 {
			b.sockets.Add(&presence.Socket{ID: uuid.New(), User: "mallory", Conn: echo{b, ctx}})
		}
		echo{b, ctx}.Send()
		lost := &b.bus.Dropped.Overflow
		redistest.Await(t, "mallory to have lost pushes", func() bool { return lost.Load() > 0 })
		for n := range 40 { // so many that some share all there is to share with mallory
			bob := b.join(userOf(n))
			got := a.bus.push(t.Context(), Push{User: bob.User, Frame: []byte("x"), Wait: Written})
			want := Outcome{State: presence.Online, Instances: 1, Sockets: presence.Counts{Written: 1}}
			if got != want {
				t.Fatalf("push %d: %+v, want %+v", n, got, want)
			}
			bob.wantFrames("x")
		}
		if trouble := b.bus.NotReadyReason(); trouble != "" {
			t.Error(trouble)
		}
	})
}

// fillFromClient queues what a user's clients cause until there is no room for it, and says how many were
// queued.
func (r *shardRouter) fillFromClient(user string) (queued int) {
	for {
		ticket := newTicket([]Push{{User: user, FromClient: true}}, time.Now().Add(time.Hour), nil)
		r.begin(&ticket.pushes[0])
		if ticket.pushes[0].outcome.Err != nil {
			return queued
		}
		queued++
	}
}

func TestWhatClientsCauseLeavesRoomToOtherClientsAndToBackends(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newShardRouter(a.bus, 0) // that does not run
	if got := l.fillFromClient("mallory"); got != userPushes {
		t.Errorf("mallory had %d orders waiting, want %d", got, userPushes)
	}
	if got := l.fillFromClient("alice"); got != userPushes {
		t.Errorf("alice had %d orders waiting, want %d", got, userPushes)
	}
	for n := range clientPushes / userPushes {
		l.fillFromClient(userOf(n))
	}
	if got := len(l.queue.pushes); got != clientPushes {
		t.Errorf("all clients have %d orders waiting, want %d", got, clientPushes)
	}
	for n := range queuePushes - clientPushes {
		ticket := newTicket([]Push{{User: "mallory"}}, time.Now().Add(time.Hour), nil)
		if l.begin(&ticket.pushes[0]); ticket.pushes[0].outcome.Err != nil {
			t.Fatalf("push %d of a backend: %v", n, ticket.pushes[0].outcome.Err)
		}
	}
	for len(l.queue.take(time.Now())) > 0 {
	}
	if got := l.fillFromClient("mallory"); got != userPushes {
		t.Errorf("with room again mallory had %d orders queued", got)
	}
	for len(l.queue.take(time.Now())) > 0 {
	}
	if l.queue.clients != (usage{}) || len(l.queue.byUser) > 0 {
		t.Errorf("%+v is still counted for clients, and %d users are remembered", l.queue.clients, len(l.queue.byUser))
	}
}

func TestOneLargeOrderOfAClientFindsRoomAndASecondDoesNot(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newShardRouter(a.bus, 0) // that does not run
	push := Push{User: "alice", FromClient: true, Frame: make([]byte, userBytes+1)}
	for n, want := range []error{nil, ErrBusy} {
		ticket := newTicket([]Push{push}, time.Now().Add(time.Hour), nil)
		if l.begin(&ticket.pushes[0]); ticket.pushes[0].outcome.Err != want {
			t.Errorf("order %d: %v, want %v", n, ticket.pushes[0].outcome.Err, want)
		}
	}
}

func TestQuestionsAboutAnswersToOneUsersClientsLeaveRoomToOtherUsers(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newShardRouter(a.bus, 0) // that does not run, but is emptied
	ask := func(user string) error {
		ticket := newTicket([]Push{{User: user, FromClient: true, Wait: Handed}}, time.Now().Add(time.Hour), nil)
		l.begin(&ticket.pushes[0])
		l.queue.take(time.Now()) // it is on its way, and its owner does not reply
		return ticket.pushes[0].outcome.Err
	}
	for n := range maxClientRequests {
		if err := ask("mallory"); err != nil && n < maxUserRequests {
			t.Fatal(err)
		}
	}
	if err := ask("mallory"); err != ErrAsking {
		t.Errorf("one more of mallory: %v", err)
	}
	if err := ask("alice"); err != nil {
		t.Errorf("alice: %v", err)
	}
}

func TestQuestionsAboutAnswersToClientsLeaveRoomToBackends(t *testing.T) {
	var a pendingRequests
	begin := func(fromClient bool) error {
		user := ""
		if fromClient {
			user = userOf(int(a.last))
		}
		_, err := a.register(nil, user)
		return err
	}
	for range maxClientRequests {
		if err := begin(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(true); err != ErrAsking {
		t.Errorf("one more for clients: %v", err)
	}
	for range maxRequests - maxClientRequests {
		if err := begin(false); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(false); err != ErrAsking {
		t.Errorf("one more than all: %v", err)
	}
	a.remove(1)
	if err := begin(true); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestHandedIsAPushWhenItsOwnersHaveHandedItToTheirSockets(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a, b, alice := startWithAlice(t, server)
		open := alice.shut()
		push := []Push{{User: "alice", Frame: []byte("x"), Wait: Handed}}
		ticket := a.bus.Begin(push, time.Now().Add(redistest.Patience))
		outcome := make(chan Outcome, 1)
		go func() { outcome <- ticket.Wait(context.Background())[0] }()
		redistest.Await(t, "the push to come", func() bool {
			return stateOf(ticket) == completed && b.bus.Queued() == 1
		})
		select {
		case got := <-outcome:
			t.Errorf("before alice had it: %+v", got)
		default:
		}
		hasty := a.bus.Begin(push, time.Now().Add(200*time.Millisecond)) // it may be given up before it is sent
		if got := hasty.Wait(t.Context())[0]; got.Err == nil && got.Sockets != (presence.Counts{Unanswered: 1}) {
			t.Errorf("an owner that is behind: %+v", got)
		}
		open()
		if got, want := <-outcome, (Outcome{State: presence.Online, Instances: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		here := b.bus.Begin(push, time.Now().Add(redistest.Patience))
		if got := here.Wait(t.Context())[0]; got != (Outcome{State: presence.Online, Instances: 1}) {
			t.Errorf("to sockets here: %+v", got)
		}
	})
}

func TestWhatNobodyWaitsForAnyMoreIsNotSent(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newShardRouter(a.bus, 0) // that does not run
	for _, until := range []time.Time{time.Now(), time.Now().Add(time.Hour)} {
		l.begin(&newTicket([]Push{{User: "alice"}}, until, nil).pushes[0])
	}
	if batch := l.queue.take(time.Now()); len(batch) != 1 || time.Until(batch[0].ticket.until) < 0 {
		t.Errorf("%d are sent", len(batch))
	}
}
