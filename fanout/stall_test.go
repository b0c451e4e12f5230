package fanout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// stall makes all calls of Redis about one shard hang, until its end.
type stall struct {
	shard string        // what its keys and channels begin with
	begun chan struct{} // closed when it begins
	ended chan struct{} // closed when it ends
	end   func()
}

func newStall(shardPrefix string) *stall {
	s := &stall{shard: shardPrefix, begun: make(chan struct{}), ended: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	return s
}

// begin begins it. It ends by itself if the test waits in vain, which then fails instead of waiting for ever.
func (s *stall) begin() {
	close(s.begun)
	time.AfterFunc(redistest.Patience, s.end)
}

// hang waits for the end of the stall if there is one and the command is about its shard.
func (s *stall) hang(command rueidis.Completed) {
	select {
	case <-s.begun:
	default:
		return
	}
	for _, word := range command.Commands() {
		if strings.HasPrefix(word, s.shard) {
			<-s.ended
			return
		}
	}
}

// stalledClient is a client under a stall.
type stalledClient struct {
	rueidis.Client
	stall *stall
}

func (c stalledClient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	c.stall.hang(command)
	return c.Client.Do(ctx, command)
}

func (c stalledClient) DoMulti(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	for _, command := range commands {
		c.stall.hang(command)
	}
	return c.Client.DoMulti(ctx, commands...)
}

// userIn is a user of a shard.
func userIn(keys presence.Keys, shard int) string {
	for n := 0; ; n++ {
		if user := userOf(n); keys.ShardOf(user) == shard {
			return user
		}
	}
}

func TestBus_AStalledShardOrEmitStallsNoOtherShard(t *testing.T) {
	for stalled := range 2 { // emits go through shard 0
		t.Run(fmt.Sprint(stalled), func(t *testing.T) {
			t.Parallel()
			o := options(redistest.Start(t), 2)
			keys := presence.NewKeys(o.prefix, 2)
			stall := newStall(strings.TrimSuffix(keys.Owners(stalled), "owners"))
			o.client = stalledClient{o.server.Client(), stall}
			a, b := startNode(t, "a", o), startNode(t, "b", o)
			late, there := userIn(keys, stalled), userIn(keys, 1-stalled)
			atLate, atThere := b.join(late), b.join(there)
			t.Cleanup(stall.end) // or the nodes would not end, if this fails
			stall.begin()
			ticket := a.begin(Push{User: late, Frame: []byte("late")})
			b.bus.reply(stalled, envelope{sender: "a", request: 1}, nil)
			emitted := make(chan error, 1)
			go func() {
				emit := Emit{To: presence.Everybody, Frame: []byte("emit")}
				_, err := a.bus.Emit(context.Background(), emit)
				emitted <- err
			}()
			if stalled != 0 {
				atThere.wantFrames("emit")
			}

			ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
			defer cancel()
			for range 10 { // all that is between two instances: the push, the sockets, the reply
				got := a.bus.push(ctx, Push{User: there, Frame: []byte("x"), Wait: Written})
				if want := writtenToOne; got != want {
					t.Errorf("push: %+v, want %+v", got, want)
				}
				atThere.wantFrames("x")
			}

			stall.end()
			if err := <-emitted; err != nil && !errors.Is(err, ErrUnreachable) {
				t.Error(err)
			}
			got := ticket.Wait(t.Context())[0]
			if got.Err != nil && !errors.Is(got.Err, ErrUnreachable) { // it may have taken too long
				t.Errorf("the late push: %+v", got)
			}
			a.wantInTheEnd(late, atLate)
		})
	}
}

// wantInTheEnd wants pushes to a socket to be written again, sooner or later.
func (n *node) wantInTheEnd(user string, at *inbox) {
	n.t.Helper()
	redistest.Await(n.t, user+" to be found", func() bool { return n.push(user, "back").Instances == 1 })
	for at.take(1)[0] != "back" {
	}
}
