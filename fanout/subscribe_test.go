package fanout

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestSubscriptions_ReplaceOneThatIsUpAndSilent(t *testing.T) {
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
	push := Push{User: "alice", Frame: []byte("x"), Wait: Written}
	redistest.Await(t, "a to hear again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), o.lease)
		defer cancel()
		got := b.bus.push(ctx, push) // on a slow machine some find a's lease expired, or get no report
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

func (c silentClient) Receive(
	ctx context.Context, subscribe rueidis.Completed, _ func(rueidis.PubSubMessage),
) error {
	return c.Client.Receive(ctx, subscribe, func(rueidis.PubSubMessage) {})
}

func TestSubscriptions_ReplaceOneWhoseConnectionIsKilled(t *testing.T) {
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

func TestSubscriptions_TakeHeartbeatsAndRepliesWhileEveryWorkerIsHeldUp(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		o.lease = time.Second // and with it the time after which silence is noticed
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		cathy := a.join("cathy")
		held := map[*worker]*inbox{}
		for n := 0; len(held) < len(b.bus.workers); n++ {
			user := userOf(n)
			if w := b.bus.workerOf(user); held[w] == nil {
				held[w] = b.join(user)
				held[w].shut()
				a.wantPush(user, "x", presence.Online, 1)
			}
		}
		redistest.Await(t, "all workers to be held up", func() bool { return b.bus.Queued() == len(held) })
		subscription := &b.bus.subscriptions.shards[0]
		last := subscription.beats.Load()
		for range 6 { // more than there are between two looks at what was heard
			redistest.Await(t, "a heartbeat", func() bool {
				heard := subscription.beats.Load()
				more := heard > 0 && heard != last
				last = heard
				return more
			})
		}
		redistest.Await(t, "no trouble", func() bool { return b.bus.NotReadyReason() == "" })
		got := b.bus.push(t.Context(), Push{User: "cathy", Frame: []byte("x"), Wait: Written})
		want := writtenToOne
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		cathy.wantFrames("x")
	})
}
