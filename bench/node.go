package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/fanout"
	"rollcall/presence"
)

// node is an instance in this process, without HTTP and sockets: presence and fanout wired as in the binary.
type node struct {
	keys    presence.Keys
	sockets *presence.Sockets
	mirror  *presence.Mirror
	router  *fanout.Router
}

// startNode starts a node and waits until others can find it.
func (s *stage) startNode(ctx context.Context, id string, redis *redisServer) (*node, error) {
	client, err := rueidis.NewClient(redisOption(redis.addr))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", id, err)
	}
	s.atEnd(client.Close)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store := presence.Redis{ // the defaults of the binary
		Client: client, Keys: presence.NewKeys("rollcall:bench:", 1),
		Lease: 10 * time.Second, Grace: 15 * time.Second, MinStay: time.Second, LogCap: 100_000,
		SeenFor: 30 * 24 * time.Hour, SeenCap: 2_000_000, Timeout: 2 * time.Second,
	}
	n := &node{keys: store.Keys}
	n.mirror, n.sockets = presence.NewMirror(presence.MirrorOptions{Instance: id, Redis: store, Log: log})
	receiver := fanout.NewReceiver(fanout.ReceiverOptions{
		Instance: id, Redis: store, Sockets: n.sockets, Mirror: n.mirror, Log: log,
		Dial: func() (rueidis.Client, error) { return rueidis.NewClient(redisOption(redis.addr)) },
	})
	n.router = fanout.NewRouter(fanout.RouterOptions{Instance: id, Redis: store, Sockets: n.sockets, Receiver: receiver, Log: log})
	s.background(ctx, receiver.Run)
	select {
	case <-receiver.Ready():
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := n.mirror.Open(ctx); err != nil {
		return nil, fmt.Errorf("node %s: %w", id, err)
	}
	s.background(ctx, n.mirror.Run)
	s.background(ctx, n.router.Run)
	return n, nil
}

// background runs something until the end of the stage.
func (s *stage) background(ctx context.Context, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	s.atEnd(func() {
		cancel()
		running.Wait()
	})
}

// join gives each of so many users a socket on this node, and waits until all can be found.
func (n *node) join(ctx context.Context, users int, conn func(user int) presence.Conn) error {
	return n.joinFrom(ctx, 0, users, conn)
}

// joinFrom is join with other users than the first.
func (n *node) joinFrom(ctx context.Context, first, users int, conn func(user int) presence.Conn) error {
	var last *presence.Socket
	for user := first; user < first+users; user++ {
		last = &presence.Socket{ID: uuid.New(), User: userName(int64(user)), Conn: conn(user)}
		if user < first+users-1 {
			n.sockets.Add(last)
		}
	}
	if !n.mirror.Join(ctx, last) { // when it can be found, so can all before it
		return fmt.Errorf("the last of %d users can't be found: %w", users, context.Cause(ctx))
	}
	return nil
}

// fakeConn is a socket without a network. On a node that pushes do not start from, only the worker of its user sends to it.
type fakeConn struct{ inbox inbox }

// Send implements presence.Conn.
func (c *fakeConn) Send(messages ...presence.Message) bool {
	for _, message := range messages {
		c.inbox.take(message.Frame)
	}
	return true
}

// Close implements presence.Conn.
func (c *fakeConn) Close(int, string) {}

// Reachable implements presence.Conn.
func (c *fakeConn) Reachable() {}
