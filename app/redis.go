package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"rollcall/presence"
)

const (
	redisTimeout  = 2 * time.Second // of each call; half of it is the time in which a hung connection is noticed
	redisDial     = 2 * time.Second
	clusterShards = 64 // enough to spread over any Cluster, few enough for their heartbeats to cost nothing

	logCap  = 100_000             // changes of presence kept in each shard, about
	seenFor = 30 * 24 * time.Hour // how long an offline user is remembered
)

// redisServer is the Redis this instance uses: one at a URL, or its own.
type redisServer struct {
	url     string
	option  rueidis.ClientOption
	client  rueidis.Client
	own     *miniredis.Miniredis // nil if it is at a URL
	clock   part                 // of our own, which must be told that time passes, or nothing would expire
	cluster bool
}

// openRedis connects to the Redis of the settings, or starts one in this process.
func openRedis(ctx context.Context, c *Config, log *slog.Logger) (*redisServer, error) {
	r := &redisServer{url: c.RedisURL}
	if c.inProcess() {
		r.own = miniredis.NewMiniRedis()
		if err := r.own.StartAddr("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("start the in-process redis: %w", err)
		}
		r.url = "redis://" + r.own.Addr()
		r.clock = begin(ctx, r.keepTime)
	}
	if err := r.connect(ctx, log); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *redisServer) connect(ctx context.Context, log *slog.Logger) error {
	option, err := rueidis.ParseURL(r.url)
	if err != nil {
		return fmt.Errorf("--redis-url (ROLLCALL_REDIS_URL): %w", hideSecret(err))
	}
	option.DisableCache = true    // nothing is cached: an answer is Redis' own
	option.DisableRetry = true    // who calls knows better what a failure means, and Redis away must be noticed at once
	option.PipelineMultiplex = -1 // one connection, so that calls stay in order
	option.Dialer.Timeout = redisDial
	option.ConnWriteTimeout = redisTimeout / 2
	if err := r.probe(ctx, &option, log); err != nil {
		return err
	}
	r.option = option
	if r.client, err = rueidis.NewClient(option); err != nil {
		return fmt.Errorf("connect to redis at %s: %w", r.where(), err)
	}
	return nil
}

// probe asks the server what it is. The in-process one, which another instance may have started, does not tell, and needs the
// plainest of clients.
func (r *redisServer) probe(ctx context.Context, option *rueidis.ClientOption, log *slog.Logger) error {
	if option.Sentinel.MasterSet != "" {
		return nil
	}
	plain := *option
	plain.ForceSingleClient, plain.AlwaysRESP2, plain.InitAddress = true, true, option.InitAddress[:1]
	client, err := rueidis.NewClient(plain)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return fmt.Errorf("connect to redis at %s: %w", r.where(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	info, err := client.Do(ctx, client.B().Info().Section("server").Build()).ToString()
	if _, refused := rueidis.IsRedisErr(err); refused || err == nil && !strings.Contains(info, "redis_mode:") {
		*option = plain
		return nil
	}
	if err != nil {
		return fmt.Errorf("connect to redis at %s: %w", r.where(), err)
	}
	r.cluster = strings.Contains(info, "redis_mode:cluster")
	option.ForceSingleClient = !r.cluster
	warnOfEviction(ctx, client, log)
	return nil
}

// warnOfEviction warns if Redis may throw state away. Some hosted ones do not tell.
func warnOfEviction(ctx context.Context, client rueidis.Client, log *slog.Logger) {
	policy, err := client.Do(ctx, client.B().ConfigGet().Parameter("maxmemory-policy").Build()).AsStrMap()
	if err == nil && policy["maxmemory-policy"] != "noeviction" {
		log.Warn("Redis may evict keys, and presence with them: set maxmemory-policy to noeviction", "maxmemory-policy", policy["maxmemory-policy"])
	}
}

// subscriber makes a client for subscriptions alone.
func (r *redisServer) subscriber() (rueidis.Client, error) {
	client, err := rueidis.NewClient(r.option)
	if err != nil && client != nil {
		client.Close() // one that would go on trying by itself
	}
	return client, err
}

// keepTime lets keys of the in-process Redis expire.
func (r *redisServer) keepTime(ctx context.Context) {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for last := time.Now(); ; {
		select {
		case now := <-ticks.C:
			r.own.FastForward(now.Sub(last))
			last = now
		case <-ctx.Done():
			return
		}
	}
}

// presence is how presence and fanout use this Redis.
func (r *redisServer) presence(c *Config) presence.Redis {
	shards, publish := c.Shards, "PUBLISH"
	if r.cluster {
		publish = "SPUBLISH"
	}
	switch {
	case shards == 0 && r.cluster:
		shards = clusterShards
	case shards == 0:
		shards = 1
	}
	return presence.Redis{
		Client: r.client, Keys: presence.NewKeys(c.Prefix, shards), Publish: publish,
		Lease: c.Lease, Grace: c.Grace, LogCap: logCap, SeenFor: seenFor, Timeout: redisTimeout,
	}
}

func (r *redisServer) close() {
	if r.client != nil {
		r.client.Close()
	}
	r.clock.end()
	if r.own != nil {
		r.own.Close()
	}
}

// where names the server without its password.
func (r *redisServer) where() string {
	u, err := url.Parse(r.url)
	if err != nil {
		return "the given URL"
	}
	return u.Redacted()
}

// hideSecret drops the URL that a parse error quotes.
func hideSecret(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}
