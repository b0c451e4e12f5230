package fanout

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestCaughtUpIsWhoHasDeliveredEmitsToo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 2)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		alice := a.join("alice")
		open := alice.shut()
		if _, err := b.bus.Emit(t.Context(), Emit{Frame: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		caughtUp := make(chan error, 1)
		go func() { caughtUp <- a.bus.Barrier(t.Context()) }()
		redistest.Await(t, "it to wait behind the emit", func() bool { return len(a.bus.emitter.queue) == 1 })
		select {
		case err := <-caughtUp:
			t.Errorf("caught up with an emit under way: %v", err)
		default:
		}
		open()
		if err := <-caughtUp; err != nil {
			t.Error(err)
		}
		alice.mu.Lock()
		defer alice.mu.Unlock()
		if want := []string{"x"}; !slices.Equal(alice.frames, want) {
			t.Errorf("got %q by then, want %q", alice.frames, want)
		}
	})
}

func TestASubscriptionThatIsUpAndSilentIsNoticedAndMadeAnew(t *testing.T) {
	server := redistest.Start(t)
	o := options(server, 1)
	b := startNode(t, "b", o)
	var dials atomic.Int64
	o.lease = time.Second // it is noticed within less
	o.dial = func() (rueidis.Client, error) {
		client, err := rueidis.NewClient(server.Option())
		if dials.Add(1) == 1 {
			client = silentClient{client}
		}
		return client, err
	}
	a := startNode(t, "a", o)
	alice := a.join("alice")
	ask := Push{User: "alice", Frame: []byte("x"), Wait: Written}
	redistest.Await(t, "a to hear again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), o.lease)
		defer cancel()
		got := b.bus.pushMany(ctx, []Push{ask})[0] // on a slow machine some find a's lease lapsed, or get no answer
		return got.Sockets == (presence.Counts{Written: 1})
	})
	alice.await(1)
	if dials.Load() < 2 {
		t.Error("the silent one was heard")
	}
	redistest.Await(t, "no trouble any more", func() bool { return a.bus.NotReadyReason() == "" })
}

// silentClient subscribes, and hears nothing.
type silentClient struct{ rueidis.Client }

func (c silentClient) Receive(ctx context.Context, subscribe rueidis.Completed, _ func(rueidis.PubSubMessage)) error {
	return c.Client.Receive(ctx, subscribe, func(rueidis.PubSubMessage) {})
}

func TestASubscriptionWhoseConnectionIsKilledIsMadeAnew(t *testing.T) {
	server := redistest.Start(t)
	o := options(server, 1)
	a, b := startNode(t, "a", o), startNode(t, "b", o)
	alice := a.join("alice")
	server.Do(server.Client(), "CLIENT", "KILL", "TYPE", "pubsub")
	redistest.Await(t, "a to hear again", func() bool { // and what was answered as taken by nobody was not
		got := b.push("alice", "x")
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		return got.Instances == 1
	})
	alice.wantFrames("x")
}
