package redis

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// node is what a server says about itself.
type node struct {
	// version is that of the Redis whose commands it has: a Valkey says 7.2.4, whatever its own version is.
	// Empty: it does not say.
	version  string
	mode     string // standalone, cluster or sentinel
	role     string // master or slave; newer ones say replica
	eviction string // the maxmemory-policy
	silent   bool   // an ACL forbids us to ask
}

// isInProcess reports whether this is the in-process Redis: all others say in which mode they run.
func (n node) isInProcess() bool { return n.mode == "" && !n.silent }

// discover finds out what is at the URL and sets the client's options for it. Another instance may have
// started the in-process Redis; it needs the plainest of clients.
func (c *Connection) discover(ctx context.Context) (node, error) {
	found, plain, err := c.firstToAnswer(ctx)
	if err != nil {
		return node{}, err
	}
	wantsSentinel := c.option.Sentinel.MasterSet != ""
	switch {
	case wantsSentinel && found.mode != "sentinel" && !found.silent:
		return node{}, c.urlError("?master_set= is for the addresses of Sentinels, and there is a Redis")
	case wantsSentinel:
		return found, nil
	case found.mode == "sentinel":
		return node{}, c.urlError("there is a Sentinel: say whose servers to use, with ?master_set=<name>")
	case found.isInProcess():
		c.option = plain
	}
	c.Cluster = found.mode == "cluster"
	c.option.ForceSingleClient = !c.Cluster
	if err := c.checkCompatible(found); err != nil { // now: the real client might not even connect to it
		return node{}, err
	}
	if !c.Cluster && len(c.option.InitAddress) > 1 {
		return node{}, c.urlError("several addresses are for a Cluster, or with ?master_set= for " +
			"Sentinels, and there is a single Redis")
	}
	return found, nil
}

// firstToAnswer asks the addresses of the URL one after the other. It returns what the first that answers is,
// and the options that reached it.
func (c *Connection) firstToAnswer(ctx context.Context) (found node, plain rueidis.ClientOption, err error) {
	for _, addr := range c.option.InitAddress {
		plain = plainOption(c.option, addr)
		if found, err = askAt(ctx, plain); err == nil {
			return found, plain, nil
		}
	}
	if c.option.Sentinel.MasterSet != "" {
		return node{}, plain, c.sentinelError(err)
	}
	return node{}, plain, c.connectError(err)
}

func askAt(ctx context.Context, option rueidis.ClientOption) (node, error) {
	client, err := rueidis.NewClient(option)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return node{}, err
	}
	return askNode(ctx, client)
}

// askNode asks a server with INFO. If an ACL forbids INFO, HELLO still tells the most important.
func askNode(ctx context.Context, client rueidis.Client) (node, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	info, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err == nil {
		return nodeOfInfo(info), nil
	}
	if _, refused := rueidis.IsRedisErr(err); !refused {
		return node{}, err
	}
	hello, err := client.Do(ctx, client.B().Arbitrary("HELLO").Build()).AsMap()
	if _, refused := rueidis.IsRedisErr(err); refused {
		return node{silent: true}, nil
	}
	if err != nil {
		return node{}, err
	}
	field := func(name string) string {
		message := hello[name]
		text, _ := message.ToString() // empty if it is not there
		return text
	}
	return node{version: field("version"), mode: field("mode"), role: field("role")}, nil
}

// nodeOfInfo reads the answer to INFO, which has lines of name:value.
func nodeOfInfo(info string) node {
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return node{
		version:  fields["redis_version"],
		mode:     cmp.Or(fields["redis_mode"], fields["server_mode"]), // Valkey says server_mode
		role:     fields["role"],
		eviction: fields["maxmemory_policy"],
	}
}

// checkNodes looks at every node of a Cluster, or at the master that the Sentinels name. It refuses those
// that can't serve, and warns of what would go wrong later.
func (c *Connection) checkNodes(ctx context.Context, log *slog.Logger) error {
	for addr, client := range c.Client.Nodes() {
		n, err := askNode(ctx, client)
		if err != nil {
			continue // it is away for now, and the client copes with that
		}
		if err := c.checkCompatible(n); err != nil {
			return fmt.Errorf("%s: %w", addr, err)
		}
		switch {
		case n.version == "":
			log.Warn("Redis does not say what version it is: it needs to be "+minVersion(c.Cluster)+
				" or newer, with the maxmemory-policy noeviction", "redis", addr)
		case n.eviction == "":
			log.Warn("Redis does not say whether it may evict keys: its maxmemory-policy must be noeviction",
				"redis", addr)
		case n.eviction != "noeviction":
			log.Warn("Redis may evict keys, and presence with them: set maxmemory-policy to noeviction",
				"redis", addr, "maxmemory-policy", n.eviction)
		}
	}
	return nil
}

// checkCompatible returns an error if a server says something about itself that makes it unfit.
func (c *Connection) checkCompatible(n node) error {
	switch {
	case n.version != "" && !isAtLeast(n.version, minVersion(c.Cluster)) && c.Cluster:
		return c.urlError(fmt.Sprintf("there is a Cluster of version %s, and a Cluster needs "+
			"Redis %s or newer, for sharded pub/sub, or any Valkey", n.version, minVersion(true)))
	case n.version != "" && !isAtLeast(n.version, minVersion(c.Cluster)):
		return c.urlError(fmt.Sprintf("there is version %s: Rollcall needs Redis %s or newer, or any Valkey",
			n.version, minVersion(false)))
	case n.role != "" && n.role != "master" && !c.Cluster:
		return c.urlError(replicaHint)
	}
	return nil
}

// minVersion is the first version that works. Subscriptions need RESP3, which came with 6.0; sharded pub/sub
// came with 7.0.
func minVersion(cluster bool) string {
	if cluster {
		return "7.0"
	}
	return "6.0"
}

// isAtLeast compares versions by their first two numbers.
func isAtLeast(version, least string) bool {
	major, minor := versionNumbers(version)
	leastMajor, leastMinor := versionNumbers(least)
	return major > leastMajor || major == leastMajor && minor >= leastMinor
}

func versionNumbers(version string) (major, minor int) {
	words := strings.SplitN(version, ".", 3)
	major, _ = strconv.Atoi(words[0])
	if len(words) > 1 {
		minor, _ = strconv.Atoi(words[1])
	}
	return major, minor
}
