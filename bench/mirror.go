package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

// measureMirror has users join one node, all at once, as after a restart.
func measureMirror(ctx context.Context, s *stage) ([]row, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	n, err := s.startNode(ctx, "7f3a9c1e", redis)
	if err != nil {
		return nil, err
	}
	users := int64(s.mirrored)
	joined, err := s.measure(ctx, redis, []int{os.Getpid()}, func() (int64, error) {
		return users, n.join(ctx, s.mirrored, func(int) presence.Conn { return &fakeConn{} })
	})
	if err != nil {
		return nil, err
	}
	owners, err := redis.keyBytes(ctx, n.keys.Owners(0))
	if err != nil {
		return nil, err
	}
	log, err := redis.keyBytes(ctx, n.keys.Log(0))
	if err != nil {
		return nil, err
	}
	floor, err := measureHset(ctx, s, redis)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	const hset = "HSET of 256 a call"
	bytesEach := func(total int64) quantity { return quantity{float64(total) / float64(users), " B"} }
	return []row{
		{what: fmt.Sprintf("**users mirrored**, %s joining one instance", thousands(users)), found: joined.rate(), floor: floor.rate(), ofFloor: hset},
		{what: "CPU of Redis, a user", found: joined.redisEach(), floor: floor.redisEach(), ofFloor: hset},
		{what: "memory of Redis, an online user", found: bytesEach(joined.redis.memory)},
		{what: "of which in the hash of owners", found: bytesEach(owners)},
		{what: "of which in the log of changes, whose length is capped", found: bytesEach(log)},
	}, nil
}

// keyBytes is the memory that a key takes.
func (r *redisServer) keyBytes(ctx context.Context, key string) (int64, error) {
	bytes, err := r.client.Do(ctx, r.client.B().MemoryUsage().Key(key).Samples(0).Build()).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", key, err)
	}
	return bytes, nil
}

// measureHset writes as many entries as users joined into a hash, each as long as Rollcall's, one call at a time.
func measureHset(ctx context.Context, s *stage, redis *redisServer) (cost, error) {
	const together = 256
	client, err := rueidis.NewClient(redisOption(redis.addr))
	if err != nil {
		return cost{}, err
	}
	s.atEnd(client.Close)
	return s.measure(ctx, redis, nil, func() (int64, error) {
		for first := 0; first < s.mirrored; first += together {
			command := client.B().Hset().Key("rollcall:bench:floor").FieldValue()
			for user := first; user < min(first+together, s.mirrored); user++ {
				command = command.FieldValue(userName(int64(user)), "1700000000000 7f3a9c1e.1:1")
			}
			if err := client.Do(ctx, command.Build()).Error(); err != nil {
				return 0, err
			}
		}
		return int64(s.mirrored), nil
	})
}
