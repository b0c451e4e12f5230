// Package redis connects an instance to its Redis, whatever kind of Redis that is: a single server, a
// Cluster, a master that Sentinels watch, or a server in this very process.
//
// [Connect] works in four steps. It asks the first address of the URL that answers what it is; that decides
// which client to use. It makes that client. It checks every node: a server that is too old or a replica is
// refused, one that may evict keys is warned of. Last, it subscribes once, because a user of Redis may be
// allowed to write and not to listen. An instance that starts has therefore been allowed all that it needs.
//
// Whatever fails is said in terms of the settings: which one to change, and how. No error shows a password.
package redis

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/rueidis"
)

// Config says which Redis to use.
type Config struct {
	URL    string // empty: a Redis in this process
	CAFile string // PEM file with the certificates to trust; empty: those of this machine
	Prefix string // of all keys and channels

	// of the Sentinels; the servers that they watch have theirs in the URL
	SentinelUsername, SentinelPassword string
}

const (
	// Timeout is how long a call to Redis may take.
	Timeout = 2 * time.Second

	dialTimeout = 2 * time.Second
)

// Connection is the way to one Redis. Its fields are static after Connect.
type Connection struct {
	Client  rueidis.Client
	Cluster bool
	URL     string // where other instances find this Redis, also if it is in this process

	config Config
	option rueidis.ClientOption
	server *inProcess // nil: Redis is another process
}

// Connect connects to the Redis of the settings, or starts one in this process. The context is for connecting
// only; Close ends the connection.
func Connect(ctx context.Context, config Config, log *slog.Logger) (*Connection, error) {
	c := &Connection{URL: config.URL, config: config}
	if config.URL == "" {
		server, err := startInProcess()
		if err != nil {
			return nil, fmt.Errorf("start the in-process redis: %w", err)
		}
		c.server, c.URL = server, server.url
	}
	if err := c.connect(ctx, log); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Connection) connect(ctx context.Context, log *slog.Logger) error {
	var err error
	if c.option, err = clientOption(c.config, c.URL); err != nil {
		return err
	}
	found, err := c.discover(ctx)
	if err != nil {
		return err
	}
	if c.Client, err = rueidis.NewClient(c.option); err != nil {
		return c.connectError(err)
	}
	if found.isInProcess() {
		return nil
	}
	if c.Cluster {
		// A client that may not ask for the slots takes the node for a single server.
		if c.Client.Mode() != rueidis.ClientModeCluster {
			return c.permissionError("CLUSTER SLOTS and CLUSTER SHARDS are not allowed")
		}
		c.Client = clusterClient{c.Client}
	}
	if err := c.checkNodes(ctx, log); err != nil {
		return err
	}
	return c.trySubscribing(ctx)
}

// trySubscribing subscribes to a channel of ours, which fails if the user may not. Any other failure passes:
// it may be over soon, and whoever subscribes later meets it again.
func (c *Connection) trySubscribing(ctx context.Context) error {
	client, err := c.Subscriber()
	if err != nil {
		return c.connectError(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	subscribed := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { cancel() })
	channel := c.config.Prefix + "nobody"
	command := client.B().Subscribe().Channel(channel).Build()
	if c.Cluster {
		command = client.B().Ssubscribe().Channel(channel).Build()
	}
	err = client.Receive(subscribed, command, func(rueidis.PubSubMessage) {})
	if _, refused := rueidis.IsRedisErr(err); refused {
		return c.connectError(err)
	}
	return nil
}

// Subscriber makes a client for subscriptions alone. The caller closes it.
func (c *Connection) Subscriber() (rueidis.Client, error) {
	client, err := rueidis.NewClient(c.option)
	if err != nil && client != nil {
		client.Close() // it would go on trying in the background
	}
	return client, err
}

// Close closes the client, and ends the Redis in this process if there is one.
func (c *Connection) Close() {
	if c.Client != nil {
		c.Client.Close()
	}
	if c.server != nil {
		c.server.close()
	}
}

// clusterClient is the client of a Cluster. While a slot moves to another node, Redis refuses a command that
// names several of its keys until all of them have arrived. Nothing was done then, so the command is sent
// again.
type clusterClient struct{ rueidis.Client }

// tryAgainPause is a good part of the time that one of our slots takes to move.
const tryAgainPause = 5 * time.Millisecond

// Do sends a command until Redis does something about it, or the context ends.
func (c clusterClient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	command = command.Pin() // keeps it from being recycled after the first attempt
	for {
		result := c.Client.Do(ctx, command)
		if err, refused := rueidis.IsRedisErr(result.Error()); !refused || !err.IsTryAgain() {
			return result
		}
		select {
		case <-time.After(tryAgainPause):
		case <-ctx.Done():
			return result
		}
	}
}
