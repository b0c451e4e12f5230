package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/presence"
)

// measureReads asks about a million present users.
func measureReads(ctx context.Context, e *env) ([]row, error) {
	n, err := e.startNode(ctx, 1)
	if err != nil {
		return nil, err
	}
	directory := n.mirror.Directory()
	some := make([]string, presence.MaxLookup)
	for i := range some {
		some[i] = userName(i * present / len(some))
	}
	lookup, err := median(func() error {
		answer := directory.Lookup(ctx, some)
		if last := answer.Users[len(some)-1].State; answer.Stale || last != presence.Online {
			return fmt.Errorf("a present user was read as %v", last)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	count, err := median(func() error {
		if counted, _, stale := directory.Count(ctx); stale || counted != present {
			return fmt.Errorf("counted %d", counted)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	started := time.Now()
	listed, pages, err := list(ctx, directory)
	if err != nil || listed < present {
		return nil, fmt.Errorf("listed %d users on %d pages: %w", listed, pages, err)
	}
	byID := fmt.Sprintf("**reads**, %s users present: %d by id, median", thousands(present), len(some))
	return []row{
		{what: byID, found: millis(lookup)},
		{what: "count, median", found: millis(count)},
		{what: fmt.Sprintf("all of them, in %d pages", pages), found: seconds(time.Since(started))},
	}, nil
}

// list pages through everybody.
func list(ctx context.Context, directory *presence.Directory) (listed, pages int, err error) {
	for cursor := ""; ; {
		answer, err := directory.Page(ctx, cursor, presence.MaxPage)
		if err != nil {
			return listed, pages, err
		}
		listed, pages, cursor = listed+len(answer.Users), pages+1, answer.Next
		if cursor == "" {
			return listed, pages, nil
		}
	}
}

// median runs something 101 times.
func median(run func() error) (time.Duration, error) {
	times := make([]time.Duration, 101)
	for i := range times {
		started := time.Now()
		if err := run(); err != nil {
			return 0, err
		}
		times[i] = time.Since(started)
	}
	slices.Sort(times)
	return quantile(times, 0.5), nil
}

// measureRecovery empties Redis and waits until it holds everybody again.
func measureRecovery(ctx context.Context, e *env) (rows []row, err error) {
	for _, shards := range []int{1, 64} {
		took, err := recovery(ctx, e, shards)
		if err != nil {
			return rows, fmt.Errorf("%d shards: %w", shards, err)
		}
		what := fmt.Sprintf("**Redis emptied**, shards: %d, until it holds all %s users of an instance again",
			shards, thousands(present))
		rows = append(rows, row{what: what, found: seconds(took)})
	}
	return rows, nil
}

func recovery(ctx context.Context, parent *env, shards int) (time.Duration, error) {
	e := parent.child()
	defer e.close()
	n, err := e.startNode(ctx, shards)
	if err != nil {
		return 0, err
	}
	if err := n.redis.client.Do(ctx, n.redis.client.B().Flushall().Build()).Error(); err != nil {
		return 0, err
	}
	started := time.Now()
	err = n.awaitAll(ctx)
	return time.Since(started), err
}

// awaitAll waits until Redis holds all users.
func (n *node) awaitAll(ctx context.Context) error {
	directory := n.mirror.Directory()
	for {
		if counted, _, _ := directory.Count(ctx); counted == present {
			return nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("redis does not hold all users: %w", err)
		}
	}
}

// node is presence alone, wired as in the binary but in this process, with sockets that have no network.
type node struct {
	redis  *redisServer
	mirror *presence.Mirror
}

// startNode starts a node with all users, and waits until Redis holds them.
func (e *env) startNode(ctx context.Context, shards int) (*node, error) {
	redis, err := e.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(redisOption(redis.addr))
	if err != nil {
		return nil, err
	}
	e.onClose(client.Close)
	mirror, sockets := presence.NewMirror(presence.MirrorOptions{
		Instance: "7f3a9c1e", Log: slog.New(slog.DiscardHandler),
		Redis: presence.Redis{ // the defaults of the binary
			Client: client, Keys: presence.NewKeys("rollcall:bench:", shards),
			Lease: 10 * time.Second, Grace: 15 * time.Second, MinStay: time.Second, LogCap: 100_000,
			SeenFor: 30 * 24 * time.Hour, SeenCap: 2_000_000, Timeout: 2 * time.Second,
		},
	})
	if err := mirror.Open(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { mirror.Run(running) })
	e.onClose(func() {
		stop()
		loops.Wait()
	})
	for user := range present {
		sockets.Add(&presence.Socket{ID: uuid.New(), User: userName(user), Conn: noConn{}})
	}
	n := &node{redis, mirror}
	return n, n.awaitAll(ctx)
}

// noConn is the connection of a socket to which nothing is sent.
type noConn struct{}

func (noConn) Send(...presence.Message) bool { return true }
func (noConn) Close(int, string)             {}
func (noConn) Reachable()                    {}
