package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// quietUsers are so many idle users, at the same time, while Redis' commands are counted. All can come to have the same instances.
var quietUsers = []int{0, 1000, 20_000}

// measureQuiet counts the commands that two instances send to Redis with few and many idle users.
func (s *stage) measureQuiet(ctx context.Context) (row, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return row{}, err
	}
	servers, err := startServers(2, func() (*server, error) { return s.startInstance(ctx, redis) })
	if err != nil {
		return row{}, err
	}
	var numbers, rates []string
	for _, users := range quietUsers {
		if err := s.fillQuietly(ctx, users, servers); err != nil {
			return row{}, err
		}
		silence, err := s.silence(ctx, s.idle, redis, servers...)
		if err != nil {
			return row{}, err
		}
		_, total := silence.commands()
		numbers, rates = append(numbers, thousands(int64(users))), append(rates, quantity{total, "/s"}.String())
	}
	what := fmt.Sprintf("commands in Redis with %s idle users, %d instances", strings.Join(numbers, " · "), len(servers))
	return row{what: what, text: strings.Join(rates, " · ")}, nil
}

// fillQuietly gives each of so many users a socket, and waits until the instances have nothing more to tell Redis of them.
func (s *stage) fillQuietly(ctx context.Context, users int, servers []*server) error {
	crowd, err := s.gather(users)
	if err != nil {
		return err
	}
	if _, err := crowd.dial(ctx, users, servers...); err != nil {
		return err
	}
	for _, one := range servers {
		for dirty := 1.0; dirty > 0; {
			if dirty, err = s.metric(ctx, one, "rollcall_mirror_dirty_users"); err != nil {
				return err
			}
			if err := wait(ctx, time.Second); err != nil { // the last call may still be under way
				return err
			}
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
