package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rollcall/presence"
)

// measureReads asks about many present users.
func measureReads(ctx context.Context, s *stage) ([]row, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	n, err := s.startNode(ctx, "7f3a9c1e", redis)
	if err != nil {
		return nil, err
	}
	if err := n.join(ctx, s.present, func(int) presence.Conn { return &fakeConn{} }); err != nil {
		return nil, err
	}
	directory := n.mirror.Directory()
	some := make([]string, presence.MaxLookup)
	for i := range some {
		some[i] = userName(int64(i * s.present / len(some)))
	}
	lookup, err := median(func() error {
		answer := directory.Lookup(ctx, some)
		if last := answer.Users[len(some)-1].State; answer.Stale || last != presence.Online {
			return fmt.Errorf("a user who is present was read as %v", last)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	count, err := median(func() error {
		if present, _, stale := directory.Count(ctx); stale || present != int64(s.present) {
			return fmt.Errorf("counted %d", present)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	started := time.Now()
	listed, pages, err := list(ctx, directory)
	if err != nil || listed < s.present {
		return nil, fmt.Errorf("listed %d users on %d pages: %w", listed, pages, err)
	}
	everybody := thousands(int64(s.present))
	return []row{
		{what: fmt.Sprintf("**reads**, %s users present: %d of them by id, median", everybody, len(some)), found: millis(lookup)},
		{what: "count, median", found: millis(count)},
		{what: fmt.Sprintf("all of them, in %s pages", thousands(int64(pages))), found: seconds(time.Since(started))},
	}, nil
}

// list pages through everybody.
func list(ctx context.Context, directory *presence.Directory) (users, pages int, err error) {
	for next := ""; ; {
		answer, err := directory.Page(ctx, next, presence.MaxPage)
		if err != nil {
			return users, pages, err
		}
		users, pages = users+len(answer.Users), pages+1
		if next = answer.Next; next == "" {
			return users, pages, nil
		}
	}
}

// median runs something many times.
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

func seconds(d time.Duration) quantity { return quantity{d.Seconds(), " s"} }

// measureRecovery empties Redis and waits until it holds everybody again.
func measureRecovery(ctx context.Context, s *stage) ([]row, error) {
	var rows []row
	for _, c := range []struct{ nodes, users int }{{5, s.mirrored}, {1, s.present}} {
		took, err := recovery(ctx, s, c.nodes, c.users)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{
			what:  fmt.Sprintf("**Redis emptied**, until it holds all %s users of %d instances again", thousands(int64(c.users)), c.nodes),
			found: seconds(took),
		})
	}
	return rows, nil
}

func recovery(ctx context.Context, s *stage, nodes, users int) (time.Duration, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return 0, err
	}
	var n *node
	for i := range nodes {
		if n, err = s.startNode(ctx, fmt.Sprintf("7f3a9c1%d", i), redis); err != nil {
			return 0, err
		}
		first := i * users / nodes
		if err := n.joinFrom(ctx, first, (i+1)*users/nodes-first, func(int) presence.Conn { return &fakeConn{} }); err != nil {
			return 0, err
		}
	}
	if err := redis.client.Do(ctx, redis.client.B().Flushall().Build()).Error(); err != nil {
		return 0, err
	}
	started := time.Now()
	for directory := n.mirror.Directory(); ; {
		present, _, _ := directory.Count(ctx)
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%d of %d users are back: %w", present, users, ctx.Err())
		}
		if present == int64(users) {
			return time.Since(started), nil
		}
	}
}
