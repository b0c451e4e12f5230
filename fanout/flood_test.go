package fanout

import (
	"context"
	"testing"

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

func (echo) Reachable() {}

func TestBus_WritesPushesToOthersWhileOneUserIsFlooded(t *testing.T) {
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
			want := writtenToOne
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
