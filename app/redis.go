package main

import (
	"context"
	"time"

	"rollcall/app/redis"
	"rollcall/presence"
)

const (
	clusterShards = 64 // enough to spread over any Cluster, few enough for their heartbeats to cost nothing

	logCap  = 100_000             // changes of presence kept in each shard, about
	seenFor = 30 * 24 * time.Hour // how long the last time online of an offline user is remembered
	seenCap = 2_000_000           // offline users remembered, in all shards together: some 300 MB
	minStay = time.Second         // a user who comes and goes causes two changes of presence in it at most
)

// connectRedis connects to the Redis of the settings, or starts one in this process.
func (a *App) connectRedis(ctx context.Context) error {
	connection, err := redis.Connect(ctx, redis.Config{
		URL: a.config.RedisURL, CAFile: a.config.RedisCAFile, Prefix: a.config.Prefix,
		SentinelUsername: a.config.RedisSentinelUsername, SentinelPassword: a.config.RedisSentinelPassword,
	}, a.log)
	if err != nil {
		return err
	}
	a.onStop(connection.Close)
	a.redis, a.RedisURL = connection, connection.URL
	return nil
}

// sharedRedis is how presence and fanout use this Redis.
func (a *App) sharedRedis() presence.Redis {
	shards := a.config.Shards
	if shards == 0 && a.redis.Cluster {
		shards = clusterShards
	}
	return presence.Redis{
		Client: a.redis.Client, Sharded: a.redis.Cluster,
		Keys:  presence.NewKeys(a.config.Prefix, max(shards, 1)),
		Lease: a.config.Lease, Grace: a.config.Grace, MinStay: minStay,
		LogCap: logCap, SeenFor: seenFor, SeenCap: seenCap, Timeout: redis.Timeout,
	}
}
