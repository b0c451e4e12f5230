package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

const (
	redisTimeout  = 2 * time.Second // of each call; half of it is the time in which a hung connection is noticed
	redisDial     = 2 * time.Second
	clusterShards = 64 // enough to spread over any Cluster, few enough for their heartbeats to cost nothing

	logCap  = 100_000             // changes of presence kept in each shard, about
	seenFor = 30 * 24 * time.Hour // how long an offline user is remembered
	seenCap = 2_000_000           // offline users remembered, in all shards together: some 300 MB
	minStay = time.Second         // a user who comes and goes causes two changes of presence in it at most
)

// redisServer is the Redis this instance uses: one at a URL, or its own.
type redisServer struct {
	url     string
	config  *Config
	option  rueidis.ClientOption
	client  rueidis.Client
	own     *ownRedis // nil if it is at a URL
	cluster bool
}

// openRedis connects to the Redis of the settings, or starts one in this process.
func openRedis(ctx context.Context, c *Config, log *slog.Logger) (*redisServer, error) {
	r := &redisServer{url: c.RedisURL, config: c}
	if c.inProcess() {
		var err error
		if r.own, err = startOwnRedis(ctx); err != nil {
			return nil, fmt.Errorf("start the in-process redis: %w", err)
		}
		r.url = r.own.url
	}
	if err := r.connect(ctx, log); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// connect makes the client for what is found at the URL, and refuses what can't serve.
func (r *redisServer) connect(ctx context.Context, log *slog.Logger) error {
	var err error
	if r.option, err = redisOption(r.config, r.url); err != nil {
		return err
	}
	found, err := r.recognize(ctx)
	if err != nil {
		return err
	}
	if r.client, err = rueidis.NewClient(r.option); err != nil {
		return r.explain(err)
	}
	if found.plain() {
		return nil
	}
	if r.cluster {
		if r.client.Mode() != rueidis.ClientModeCluster { // it may not ask for the slots, and took the node for a single server
			return r.mayNot("CLUSTER SLOTS and CLUSTER SHARDS are not allowed")
		}
		r.client = patient{r.client}
	}
	if err := r.inspect(ctx, log); err != nil {
		return err
	}
	return r.tryToListen(ctx)
}

// recognize finds out what is at the URL, from the first address that answers, and sets the client's options for it. The in-process
// Redis, which another instance may have started, needs the plainest of clients.
func (r *redisServer) recognize(ctx context.Context) (node, error) {
	found, plain, err := r.firstToAnswer(ctx)
	if err != nil {
		return node{}, err
	}
	sentinel := r.option.Sentinel.MasterSet != ""
	switch {
	case sentinel && found.mode != "sentinel" && !found.silent:
		return node{}, r.refuseURL("?master_set= is for the addresses of Sentinels, and there is a Redis")
	case sentinel:
		return found, nil
	case found.mode == "sentinel":
		return node{}, r.refuseURL("there is a Sentinel: say whose servers to use, with ?master_set=<name>")
	case found.plain():
		r.option = plain
	}
	r.cluster = found.mode == "cluster"
	r.option.ForceSingleClient = !r.cluster
	if err := r.fits(found); err != nil { // now, for the proper client may not even be able to connect
		return node{}, err
	}
	if !r.cluster && len(r.option.InitAddress) > 1 {
		return node{}, r.refuseURL("several addresses are for a Cluster, or with ?master_set= for Sentinels, and there is a single Redis")
	}
	return found, nil
}

// firstToAnswer asks the addresses of the URL in turn, and returns what the first to answer is and how it was reached.
func (r *redisServer) firstToAnswer(ctx context.Context) (found node, plain rueidis.ClientOption, err error) {
	for _, addr := range r.option.InitAddress {
		plain = plainOption(r.option, addr)
		if found, err = askAt(ctx, plain); err == nil {
			return found, plain, nil
		}
	}
	if r.option.Sentinel.MasterSet != "" {
		return node{}, plain, r.explainSentinel(err)
	}
	return node{}, plain, r.explain(err)
}

// tryToListen subscribes once, so that a user who may not is told so at once.
func (r *redisServer) tryToListen(ctx context.Context) error {
	client, err := r.subscriber()
	if err != nil {
		return r.explain(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	heard := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { cancel() })
	channel := r.presence().Keys.Channels(0) + "nobody"
	command := client.B().Subscribe().Channel(channel).Build()
	if r.cluster {
		command = client.B().Ssubscribe().Channel(channel).Build()
	}
	err = client.Receive(heard, command, func(rueidis.PubSubMessage) {})
	if _, refused := rueidis.IsRedisErr(err); refused {
		return r.explain(err)
	}
	return nil // anything else passes, or is met again by who subscribes in earnest
}

// subscriber makes a client for subscriptions alone.
func (r *redisServer) subscriber() (rueidis.Client, error) {
	client, err := rueidis.NewClient(r.option)
	if err != nil && client != nil {
		client.Close() // one that would go on trying by itself
	}
	return client, err
}

// presence is how presence and fanout use this Redis.
func (r *redisServer) presence() presence.Redis {
	c := r.config
	shards := c.Shards
	switch {
	case shards == 0 && r.cluster:
		shards = clusterShards
	case shards == 0:
		shards = 1
	}
	return presence.Redis{
		Client: r.client, Keys: presence.NewKeys(c.Prefix, shards), Sharded: r.cluster,
		Lease: c.Lease, Grace: c.Grace, MinStay: minStay,
		LogCap: logCap, SeenFor: seenFor, SeenCap: seenCap, Timeout: redisTimeout,
	}
}

func (r *redisServer) close() {
	if r.client != nil {
		r.client.Close()
	}
	if r.own != nil {
		r.own.close()
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

// patient is the client of a Cluster. While a slot is moving, a command that names several of its keys is refused until all have
// arrived; nothing was done then, so it is tried again.
type patient struct{ rueidis.Client }

// moveRetry is a good part of the time that a slot of ours takes to move.
const moveRetry = 5 * time.Millisecond

// Do is as the client's, and the time that a slot takes to move counts against the context's.
func (p patient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	command = command.Pin() // it may be needed again
	for {
		result := p.Client.Do(ctx, command)
		if err, refused := rueidis.IsRedisErr(result.Error()); !refused || !err.IsTryAgain() {
			return result
		}
		select {
		case <-time.After(moveRetry):
		case <-ctx.Done():
			return result
		}
	}
}
