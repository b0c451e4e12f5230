package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// node is what a server says of itself.
type node struct {
	version  string // of the Redis whose commands it has; a Valkey says 7.2.4 whatever its own is. Empty: it does not say
	mode     string // standalone, cluster or sentinel
	role     string // master, or slave, which newer ones call replica
	eviction string // the maxmemory-policy
	silent   bool   // it was not allowed to say anything
}

// plain says whether it is the in-process Redis: all others say what mode they run in.
func (n node) plain() bool { return n.mode == "" && !n.silent }

// askAt asks the server that a client with these options reaches.
func askAt(ctx context.Context, option rueidis.ClientOption) (node, error) {
	client, err := rueidis.NewClient(option)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return node{}, err
	}
	return inquire(ctx, client)
}

// inquire asks with INFO. Whom an ACL forbids that still learns the most important from HELLO.
func inquire(ctx context.Context, client rueidis.Client) (node, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	info, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err == nil {
		said := readInfo(info)
		return node{
			version: said["redis_version"], mode: cmp.Or(said["redis_mode"], said["server_mode"]), // the second is Valkey's word
			role: said["role"], eviction: said["maxmemory_policy"],
		}, nil
	}
	if _, refused := rueidis.IsRedisErr(err); !refused {
		return node{}, err
	}
	said, err := client.Do(ctx, client.B().Arbitrary("HELLO").Build()).AsMap()
	if _, refused := rueidis.IsRedisErr(err); refused {
		return node{silent: true}, nil
	}
	if err != nil {
		return node{}, err
	}
	word := func(name string) string {
		message := said[name]
		text, _ := message.ToString() // empty if it does not say
		return text
	}
	return node{version: word("version"), mode: word("mode"), role: word("role")}, nil
}

// readInfo reads lines of name:value.
func readInfo(info string) map[string]string {
	said := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			said[name] = value
		}
	}
	return said
}

// inspect refuses servers that can't serve, and warns of what would go wrong later. It looks at every node of a Cluster, and at the
// master that Sentinels name.
func (r *redisServer) inspect(ctx context.Context, log *slog.Logger) error {
	for addr, client := range r.client.Nodes() {
		n, err := inquire(ctx, client)
		if err != nil {
			continue // away for now, which the client can live with
		}
		if err := r.fits(n); err != nil {
			return fmt.Errorf("%s: %w", addr, err)
		}
		switch {
		case n.version == "":
			log.Warn("Redis does not say what version it is: it needs to be "+oldest(r.cluster)+" or newer, with the maxmemory-policy noeviction", "redis", addr)
		case n.eviction == "":
			log.Warn("Redis does not say whether it may evict keys: its maxmemory-policy must be noeviction", "redis", addr)
		case n.eviction != "noeviction":
			log.Warn("Redis may evict keys, and presence with them: set maxmemory-policy to noeviction", "redis", addr, "maxmemory-policy", n.eviction)
		}
	}
	return nil
}

// fits says why a server can't be used, as far as it tells.
func (r *redisServer) fits(n node) error {
	switch {
	case n.version != "" && !atLeast(n.version, oldest(r.cluster)) && r.cluster:
		return r.refuseURL(fmt.Sprintf("there is a Cluster of version %s, and a Cluster needs Redis %s or newer, for sharded pub/sub, or any Valkey", n.version, oldest(true)))
	case n.version != "" && !atLeast(n.version, oldest(r.cluster)):
		return r.refuseURL(fmt.Sprintf("there is version %s: Rollcall needs Redis %s or newer, or any Valkey", n.version, oldest(false)))
	case n.role != "" && n.role != "master" && !r.cluster:
		return r.refuseURL(replicaHint)
	}
	return nil
}

// oldest is the first version that works. Scripts write although they read the clock, which Redis 5 began to allow; subscriptions are
// safe with its successor's protocol only. Sharded pub/sub came with 7.0.
func oldest(cluster bool) string {
	if cluster {
		return "7.0"
	}
	return "6.0"
}

// atLeast compares versions by their first two numbers.
func atLeast(version, oldest string) bool {
	major, minor := versionNumbers(version)
	oldestMajor, oldestMinor := versionNumbers(oldest)
	return major > oldestMajor || major == oldestMajor && minor >= oldestMinor
}

func versionNumbers(version string) (major, minor int) {
	words := strings.SplitN(version, ".", 3)
	major, _ = strconv.Atoi(words[0])
	if len(words) > 1 {
		minor, _ = strconv.Atoi(words[1])
	}
	return major, minor
}
