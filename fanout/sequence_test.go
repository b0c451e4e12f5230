package fanout

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// slowConn is a connection to Redis that can break, as its user sees it, while what was written last is still
// on its way: a network sends again what it lost, long after a new connection has been made.
type slowConn struct {
	*net.TCPConn

	mu sync.Mutex
	// mu guards the following
	slow bool
	held []byte // written since it is slow
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slow {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.TCPConn.Write(b)
}

// Close keeps a slow one open for what it holds.
func (c *slowConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slow {
		return c.CloseRead()
	}
	return c.TCPConn.Close()
}

func (c *slowConn) slowDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = true
}

func (c *slowConn) holds(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.held, []byte(text))
}

// arrive brings Redis what is held.
func (c *slowConn) arrive() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = false
	_, err := c.TCPConn.Write(c.held)
	return err
}

// throughSlowConn makes a client whose first connection it returns.
func throughSlowConn(t *testing.T, server *redistest.Server) (rueidis.Client, *slowConn) {
	t.Helper()
	conns := make(chan *slowConn, 100)
	option := server.Option()
	option.DialCtxFn = func(
		ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config,
	) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		slow := &slowConn{TCPConn: conn.(*net.TCPConn)}
		conns <- slow
		return slow, nil
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, <-conns
}

func TestBus_DropsAndCountsAPushThatComesAfterItsSuccessors(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		b := startNode(t, "b", o)
		alice := b.join("alice")
		var conn *slowConn
		o.client, conn = throughSlowConn(t, server)
		a := startNode(t, "a", o)
		a.wantPush("alice", "before", presence.Online, 1)

		conn.slowDown()
		ticket := a.begin(Push{User: "alice", Frame: []byte("given up")})
		redistest.Await(t, "the push to be written", func() bool { return conn.holds("given up") })
		if err := conn.CloseRead(); err != nil {
			t.Fatal(err)
		}
		if got := ticket.Wait(t.Context())[0]; !errors.Is(got.Err, ErrUnreachable) {
			t.Errorf("got %+v", got)
		}
		redistest.Await(t, "a new connection", func() bool {
			return a.push("alice", "successor").Instances == 1
		})
		if err := conn.arrive(); err != nil {
			t.Fatal(err)
		}
		redistest.Await(t, "the late push to come", func() bool { return b.bus.Dropped.Late.Load() == 1 })
		a.wantPush("alice", "after", presence.Online, 1)
		alice.wantFrames("before", "successor", "after")
	})
}

func TestBus_SendsAnInstanceWithTwoLiveIncarnationsOneMessage(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		alice, bob := b.join("alice"), b.join("bob")
		// as when b raises its epoch before its first lease has lapsed: bob is written under the new token,
		// alice not yet
		keys, soon := presence.NewKeys(o.prefix, 1), time.Now().Add(time.Minute).UnixMilli()
		server.Do(server.Client(), "HSET", keys.Leases(0), "b.2", fmt.Sprintf("%d 1", soon))
		server.Do(server.Client(), "HSET", keys.Owners(0), "bob", "1 b.2:1")
		pushes := []Push{{User: "alice", Frame: []byte("x")}, {User: "bob", Frame: []byte("y")}}
		for n, outcome := range a.bus.pushMany(t.Context(), pushes) {
			if outcome.Err != nil || outcome.Instances != 1 {
				t.Errorf("push %d: %+v", n, outcome)
			}
		}
		alice.wantFrames("x")
		bob.wantFrames("y")
	})
}

func TestSequenceGuard_FindsWhatALaterBatchOfTheSameSenderAndShardHasOvertaken(t *testing.T) {
	var g sequenceGuard
	for n, step := range []struct {
		channel, sender string
		batch           uint64
		late            bool
	}{
		{"0", "a", 5, false}, {"0", "a", 5, true}, {"0", "a", 4, true},
		{"1", "a", 4, false}, {"0", "b", 1, false},
		{"0", "a", 7, false}, {"0", "a", 6, true},
	} {
		if got := g.isSuperseded(step.channel, step.sender, step.batch); got != step.late {
			t.Errorf("step %d: late is %v", n, got)
		}
	}
	for n := range 2 * maxSenders {
		g.isSuperseded("0", userOf(n), 1)
	}
	if len(g.last) > maxSenders {
		t.Errorf("%d senders are remembered", len(g.last))
	}
}
