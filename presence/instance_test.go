package presence

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// cluster is a Redis and what its instances share.
type cluster struct {
	t      testing.TB
	server *redistest.Server
	client rueidis.Client
	redis  Redis
}

func newCluster(t testing.TB, server *redistest.Server, shards int) *cluster {
	client := server.Client()
	return &cluster{t, server, client, Redis{
		Client: client, Keys: NewKeys(redistest.Prefix(), shards),
		Lease: 10 * time.Second, Grace: testGrace, Timeout: redistest.Patience,
		LogCap: 100_000, SeenFor: time.Hour, SeenCap: 100_000,
	}}
}

// instance is a mirror that runs.
type instance struct {
	*Mirror
	t    testing.TB
	stop func() // as when the process is told to stop; may be called twice
}

// newIdleMirror is a mirror whose loops do not run.
func newIdleMirror(name string, redis Redis) *Mirror {
	m, _ := NewMirror(MirrorOptions{Instance: name, Redis: redis, Log: slog.New(slog.DiscardHandler)})
	return m
}

func (c *cluster) startInstance(name string) *instance {
	c.t.Helper()
	m := newIdleMirror(name, c.redis)
	if err := m.Open(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	i := &instance{m, c.t, func() { cancel(); <-done }}
	c.t.Cleanup(i.stop)
	return i
}

// join adds a socket and wants it to be reachable.
func (i *instance) join(user string) *Socket {
	i.t.Helper()
	socket, _ := newSocket(user)
	ctx, cancel := context.WithTimeout(i.t.Context(), redistest.Patience)
	defer cancel()
	if !i.Join(ctx, socket) {
		i.t.Fatalf("%s is not reachable", user)
	}
	return socket
}

// waitMirrored waits until Redis has everything that happened so far.
func (i *instance) waitMirrored() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), redistest.Patience)
	defer cancel()
	for _, s := range i.shards {
		if !s.writes.waitFlushed(ctx, s.writes.lastSeq()) {
			i.t.Fatal("not mirrored")
		}
	}
}

// wantUser wants to read this of a user.
func (i *instance) wantUser(name string, state State, sockets int, instances ...string) User {
	i.t.Helper()
	answer := i.Directory().Lookup(i.t.Context(), []string{name})
	u := answer.Users[0]
	slices.Sort(u.Instances)
	if u.State != state || u.Sockets != sockets || !slices.Equal(u.Instances, instances) || answer.Stale {
		i.t.Errorf("read %s, want %s with %d sockets on %v", marshalled(i.t, u), state, sockets, instances)
	}
	return u
}

// wantLog wants these changes to have been logged in shard 0.
func (c *cluster) wantLog(changes ...string) {
	c.t.Helper()
	if got := c.server.Changes(c.client, c.redis.Keys.Log(0)); !slices.Equal(got, changes) {
		c.t.Errorf("log: %q, want %q", got, changes)
	}
}

// crash leaves what an instance leaves behind that dies after its users joined.
func crash(t *testing.T, c *cluster, name string, users ...string) {
	t.Helper()
	own := incarnation{name, 1}
	if _, err := c.redis.lease(t.Context(), 0, own, "", c.redis.Lease, nil); err != nil {
		t.Fatal(err)
	}
	var changes []change
	for _, user := range users {
		changes = append(changes, change{user: user, count: Count{Sockets: 1}, at: time.Now()})
	}
	if err := c.redis.mirror(t.Context(), 0, own, 0, changes); err != nil {
		t.Fatal(err)
	}
}

// age makes the lease of an incarnation in shard 0 older, as if the time had passed for it alone.
func (c *cluster) age(incarnation string, by time.Duration) {
	c.t.Helper()
	lease, err := c.server.Do(c.client, "HGET", c.redis.Keys.Leases(0), incarnation).ToString()
	if err != nil {
		c.t.Fatal(err)
	}
	read, ok := parseLease(lease)
	if !ok {
		c.t.Fatalf("a lease %q", lease)
	}
	aged := fmt.Sprintf("%d %d", read.deadline-by.Milliseconds(), read.version)
	c.server.Do(c.client, "HSET", c.redis.Keys.Leases(0), incarnation, aged)
}
