package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestBus_RefusesWhatNeedsRepliesWhenTooManyRequestsArePending(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	for range maxRequests {
		if _, err := a.bus.requests.register(nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	push := Push{User: "alice", Frame: []byte("x"), Wait: Written}
	if got := a.bus.push(t.Context(), push); got.Err != ErrTooManyRequests {
		t.Errorf("push: %+v", got)
	}
	if got := a.bus.Kick(t.Context(), "alice", uuid.Nil, ""); got.Err != ErrTooManyRequests {
		t.Errorf("kick: %+v", got)
	}
	_, emitted := a.bus.Emit(t.Context(), Emit{Frame: []byte("x"), Wait: Written})
	_, kicked := a.bus.KickSocket(t.Context(), uuid.New(), "")
	_, _, audited := a.bus.Audit(t.Context(), []string{"a"})
	for name, err := range map[string]error{
		"emit": emitted, "kick of a socket": kicked, "audit": audited, "barrier": a.bus.Barrier(t.Context()),
	} {
		if err != ErrTooManyRequests {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.wantPush("alice", "a push that needs no replies", presence.Online, 1)
	alice.wantFrames("a push that needs no replies")
}

func TestBus_SendsAPushToTheOwnersAndNobodyElse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 4)
		a, b, c := startNode(t, "a", o), startNode(t, "b", o), startNode(t, "c", o)
		onA, onB := a.join("alice"), b.join("alice")
		watcher := server.Client()
		// c owns none of alice's sockets: whatever was sent to it would be before the beats that it sends
		// itself
		messages := make(chan string, 100)
		listening := make(chan struct{}, 10)
		ctx, cancel := context.WithCancel(rueidis.WithOnSubscriptionHook(
			context.Background(), func(rueidis.PubSubSubscription) { listening <- struct{}{} }))
		t.Cleanup(cancel)
		subscribe := watcher.B().Psubscribe().Pattern(o.prefix + "*to:c").Build()
		go func() {
			_ = watcher.Receive(ctx, subscribe, func(m rueidis.PubSubMessage) { messages <- m.Message })
		}()
		<-listening
		for _, n := range []*node{a, b, c} {
			n.wantPush("alice", "from "+n.name, presence.Online, 2)
		}
		for _, i := range []*inbox{onA, onB} {
			got := i.take(3)
			slices.Sort(got)
			if !slices.Equal(got, []string{"from a", "from b", "from c"}) {
				t.Errorf("got %q", got)
			}
		}
		if message := <-messages; message != presence.Heartbeat {
			t.Errorf("c was sent %q", message)
		}
	})
}

func TestBus_KeepsPushesOfOneInstanceToAUserInOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 2)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		users := []string{"alice", "bob", "cathy"}
		var inboxes []*inbox
		for _, user := range users {
			inboxes = append(inboxes, a.join(user), b.join(user), b.join(user))
		}
		const each = 200
		var tickets []*Ticket
		for n := range each { // without waiting for the answers
			for _, user := range users {
				tickets = append(tickets, a.begin(Push{User: user, Frame: fmt.Append(nil, n)}))
			}
		}
		for _, ticket := range tickets {
			if got := ticket.Wait(t.Context())[0]; got != (Outcome{State: presence.Online, Instances: 2}) {
				t.Fatalf("%+v", got)
			}
		}
		for _, i := range inboxes {
			for n, frame := range i.take(each) {
				if frame != fmt.Sprint(n) {
					t.Fatalf("frame %d of %s is %s", n, i.User, frame)
				}
			}
		}
	})
}

func TestBus_CorrectsWhatRedisShowsWhenAPushFindsNoSocket(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		o.lease = time.Hour // and with it the time until an audit would find out
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		alice := b.join("alice")
		// b forgets her without a word to the mirror, as if a write had been lost
		client := server.Client()
		keys := presence.NewKeys(o.prefix, 1)
		entry, _ := server.Do(client, "HGET", keys.Owners(0), "alice").ToString()
		b.mirror.Leave(alice.Socket, true)
		left := func() bool {
			held, err := server.Do(client, "HEXISTS", keys.Owners(0), "alice").AsBool()
			return err == nil && !held
		}
		redistest.Await(t, "b's own write", left)
		server.Do(client, "HSET", keys.Owners(0), "alice", entry)
		a.wantPush("alice", "x", presence.Online, 1) // b took it, and finds that she is not there
		redistest.Await(t, "the ghost to go", left)
		if count := b.bus.Dropped.NoSocket.Load(); count != 1 {
			t.Errorf("%d were counted, want 1", count)
		}
	})
}

func TestBus_CountsAndSkipsUnknownKinds(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		alice := a.join("alice")
		message := envelope{kind: 99, sender: "b", user: "alice", frame: []byte("new")}.append(nil)
		message = envelope{kind: kindPush, sender: "b", user: "alice", frame: []byte("old")}.append(message)
		a.bus.receive(t.Context(), rueidis.PubSubMessage{Message: string(message)})
		alice.wantFrames("old")
		if got := a.bus.Dropped.Unknown.Load(); got != 1 {
			t.Errorf("%d were counted", got)
		}
		a.bus.receive(t.Context(), rueidis.PubSubMessage{Message: string(message[:len(message)-1])})
		if got := a.bus.Dropped.Malformed.Load(); got != 1 {
			t.Errorf("%d malformed were counted", got)
		}
	})
}

func TestBus_RefusesPushesThatFindNoRoomAndServesTheRest(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	pushes := make([]Push, queuePushes+batchMost+1000)
	for i := range pushes {
		pushes[i] = Push{User: "alice", Frame: fmt.Append(nil, i)}
	}
	ticket := a.bus.Begin(pushes, time.Now().Add(redistest.Patience))
	server.Resume()
	var taken []string
	refused := 0
	for i, outcome := range ticket.Wait(t.Context()) {
		switch {
		case outcome.Err == ErrBusy:
			refused++
		case outcome.Err != nil:
			t.Fatal(outcome.Err)
		default:
			taken = append(taken, fmt.Sprint(i))
		}
	}
	if refused == 0 || len(taken) < queuePushes {
		t.Errorf("%d refused, %d taken", refused, len(taken))
	}
	alice.wantFrames(taken...)
}

func TestBus_CallsNobodyOfflineWhenRedisHasLostItsState(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		o.lease = time.Minute // nobody notices until there is something to write
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		here, there := a.join("alice"), b.join("bob")
		keys := presence.NewKeys(o.prefix, 1)
		server.Do(server.Client(), "DEL", keys.Owners(0), keys.Leases(0))
		want := Outcome{State: presence.Unknown, Instances: 1, Partial: true}
		if got := a.push("alice", "x"); got != want {
			t.Errorf("push to who is here: %+v", got)
		}
		here.wantFrames("x")
		for what, got := range map[string]Outcome{
			"push": a.push("bob", "x"), "push to nobody": a.push("nobody", "x"),
			"kick": a.bus.Kick(t.Context(), "bob", uuid.Nil, ""),
		} {
			if !errors.Is(got.Err, ErrUnreachable) {
				t.Errorf("%s: %+v", what, got)
			}
		}
		a.join("cathy") // which shows a what is lost; b may not know yet
		if got := a.push("bob", "x"); !errors.Is(got.Err, ErrUnreachable) {
			t.Errorf("after a noticed: %+v", got)
		}
		b.join("dave")
		a.wantPush("bob", "y", presence.Online, 1)
		there.wantFrames("y")
	})
}

func TestBus_AnEmitThatOurSocketsGotIsNotRefusedWhenItsCallerHasGone(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		got, err := a.bus.Emit(ctx, Emit{Frame: []byte("x")})
		if err != nil || got != (Outcome{Instances: 1, Partial: true}) {
			t.Errorf("%+v, %v", got, err)
		}
		alice.wantFrames("x")
	}
}

func TestBus_RefusesPushesWhenItHasStopped(t *testing.T) {
	server := redistest.StartInProcess(t)
	a := startNode(t, "a", options(server, 1))
	stopped := a.anotherBus()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped.Run(ctx)
	if got := stopped.push(t.Context(), Push{User: "alice"}); got.Err != ErrClosing {
		t.Errorf("%+v", got)
	}
}

func TestBus_DeliversPushesToAUserInTheSameOrderOnEveryInstance(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		here, there := a.join("alice"), b.join("alice")
		const callers, each = 16, 100
		var calling sync.WaitGroup
		for caller := range callers {
			calling.Go(func() {
				for n := range each {
					a.push("alice", fmt.Sprintf("%d of %d", n, caller))
				}
			})
		}
		calling.Wait()
		there.wantFrames(here.take(callers * each)...)
	})
}

func TestBus_RoutesWhatItHadAdmittedWhenItStops(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	open := alice.shut()
	bus := a.anotherBus()
	outcome := make(chan Outcome, 1)
	go func() { outcome <- bus.push(context.Background(), Push{User: "alice", Frame: []byte("x")}) }()
	queue := bus.routers[0].queue
	is := func(condition func() bool) func() bool {
		return func() bool { queue.mu.Lock(); defer queue.mu.Unlock(); return condition() }
	}
	redistest.Await(t, "the push to be admitted", is(func() bool { return queue.admitted == 1 }))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	stopped := make(chan struct{})
	go func() { defer close(stopped); bus.Run(ctx) }()
	redistest.Await(t, "the bus to stop", is(func() bool { return queue.closed }))
	open()
	<-stopped
	if got := <-outcome; got != (Outcome{State: presence.Online, Instances: 1}) {
		t.Errorf("%+v", got)
	}
	alice.wantFrames("x")
}
