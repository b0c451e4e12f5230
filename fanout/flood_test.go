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
		e.node.receiver.cut(e.ctx, rueidis.PubSubMessage{Message: string(flood)})
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
		lost := &b.receiver.Dropped.Overflow
		redistest.Await(t, "mallory to have lost pushes", func() bool { return lost.Load() > 0 })
		for n := range 40 { // so many that some share all there is to share with mallory
			bob := b.join(userOf(n))
			got := a.router.Push(t.Context(), Push{User: bob.User, Frame: []byte("x"), Wait: Written})
			want := Outcome{State: presence.Online, Instances: 1, Sockets: presence.Counts{Written: 1}}
			if got != want {
				t.Fatalf("push %d: %+v, want %+v", n, got, want)
			}
			bob.wantFrames("x")
		}
		if trouble := b.receiver.NotReadyReason(); trouble != "" {
			t.Error(trouble)
		}
	})
}

// fillFromClient queues what a user's clients cause until there is no room for it, and says how many were
// queued.
func (l *lane) fillFromClient(user string) (queued int) {
	for {
		ticket := newTicket([]Push{{User: user, FromClient: true}}, time.Now().Add(time.Hour))
		l.enqueue(&ticket.orders[0])
		if ticket.orders[0].outcome.Err != nil {
			return queued
		}
		queued++
	}
}

func TestWhatClientsCauseLeavesRoomToOtherClientsAndToBackends(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newLane(0, a.router) // that does not run
	if got := l.fillFromClient("mallory"); got != userOrders {
		t.Errorf("mallory had %d orders queued, want %d", got, userOrders)
	}
	if got := l.fillFromClient("alice"); got != userOrders {
		t.Errorf("alice had %d orders queued, want %d", got, userOrders)
	}
	for n := range clientOrders / userOrders {
		l.fillFromClient(userOf(n))
	}
	if got := len(l.queue); got != clientOrders {
		t.Errorf("all clients have %d orders queued, want %d", got, clientOrders)
	}
	for n := range laneOrders - clientOrders {
		ticket := newTicket([]Push{{User: "mallory"}}, time.Now().Add(time.Hour))
		if l.enqueue(&ticket.orders[0]); ticket.orders[0].outcome.Err != nil {
			t.Fatalf("push %d of a backend: %v", n, ticket.orders[0].outcome.Err)
		}
	}
	for len(l.take()) > 0 {
	}
	if got := l.fillFromClient("mallory"); got != userOrders {
		t.Errorf("with room again mallory had %d orders queued", got)
	}
	for len(l.take()) > 0 {
	}
	if l.clients != (usage{}) || len(l.users) > 0 {
		t.Errorf("%+v is still counted for clients, and %d users are remembered", l.clients, len(l.users))
	}
}

func TestOneLargeOrderOfAClientFindsRoomAndASecondDoesNot(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newLane(0, a.router) // that does not run
	push := Push{User: "alice", FromClient: true, Frame: make([]byte, userBytes+1)}
	for n, want := range []error{nil, ErrBusy} {
		ticket := newTicket([]Push{push}, time.Now().Add(time.Hour))
		if l.enqueue(&ticket.orders[0]); ticket.orders[0].outcome.Err != want {
			t.Errorf("order %d: %v, want %v", n, ticket.orders[0].outcome.Err, want)
		}
	}
}

func TestQuestionsAboutAnswersToOneUsersClientsLeaveRoomToOtherUsers(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newLane(0, a.router) // that does not run, but is emptied
	ask := func(user string) error {
		ticket := newTicket([]Push{{User: user, FromClient: true, Wait: Handed}}, time.Now().Add(time.Hour))
		l.enqueue(&ticket.orders[0])
		l.take() // it is on its way, and its owner does not reply
		return ticket.orders[0].outcome.Err
	}
	for n := range maxClientAsks {
		if err := ask("mallory"); err != nil && n < userAsks {
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
	var a asks
	begin := func(fromClient bool) error {
		user := ""
		if fromClient {
			user = userOf(int(a.last))
		}
		_, err := a.begin(nil, user)
		return err
	}
	for range maxClientAsks {
		if err := begin(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(true); err != ErrAsking {
		t.Errorf("one more for clients: %v", err)
	}
	for range maxAsks - maxClientAsks {
		if err := begin(false); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(false); err != ErrAsking {
		t.Errorf("one more than all: %v", err)
	}
	a.end(1)
	if err := begin(true); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestHandedIsAPushWhenItsOwnersHaveHandedItToTheirSockets(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a, b, alice := startWithAlice(t, server)
		open := alice.shut()
		push := []Push{{User: "alice", Frame: []byte("x"), Wait: Handed}}
		ticket := a.router.Begin(push, time.Now().Add(redistest.Patience))
		outcome := make(chan Outcome, 1)
		go func() { outcome <- ticket.Wait(context.Background())[0] }()
		redistest.Await(t, "the push to come", func() bool {
			return stateOf(ticket) == settled && b.receiver.Queued() == 1
		})
		select {
		case got := <-outcome:
			t.Errorf("before alice had it: %+v", got)
		default:
		}
		hasty := a.router.Begin(push, time.Now().Add(200*time.Millisecond)) // it may be given up before it is sent
		if got := hasty.Wait(t.Context())[0]; got.Err == nil && got.Sockets != (presence.Counts{Unanswered: 1}) {
			t.Errorf("an owner that is behind: %+v", got)
		}
		open()
		if got, want := <-outcome, (Outcome{State: presence.Online, Instances: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		here := b.router.Begin(push, time.Now().Add(redistest.Patience))
		if got := here.Wait(t.Context())[0]; got != (Outcome{State: presence.Online, Instances: 1}) {
			t.Errorf("to sockets here: %+v", got)
		}
	})
}

func TestWhatNobodyWaitsForAnyMoreIsNotSent(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newLane(0, a.router) // that does not run
	for _, until := range []time.Time{time.Now(), time.Now().Add(time.Hour)} {
		l.enqueue(&newTicket([]Push{{User: "alice"}}, until).orders[0])
	}
	if batch := l.take(); len(batch) != 1 || time.Until(batch[0].ticket.until) < 0 {
		t.Errorf("%d are sent", len(batch))
	}
}
