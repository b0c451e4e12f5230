package presence

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Heartbeat is the message that every renewal of a lease sends through the instance's own channel.
const Heartbeat = "heartbeat"

// Mirror copies [Sockets] to Redis: one loop for each shard.
type Mirror struct {
	// static after construction
	instance string
	redis    Redis
	sockets  *Sockets
	log      *slog.Logger
	started  time.Time
	record   Record
	shards   []*shard

	loops    sync.WaitGroup
	draining atomic.Bool
	live     atomic.Int64 // instances with a live lease, when ours was last renewed; 0 before

	errors     atomic.Int64 // failed calls of Redis since the start
	remirrors  atomic.Int64 // times since the start that a shard's lease was lost
	unreadable atomic.Int64 // see Stats

	found  atomic.Int64 // differences that audits have found since the start
	oldest atomic.Int64 // the age of the oldest one known, ns

	auditing sync.Mutex
	// auditing guards the following
	differences map[string]time.Time // that the last audit found: user → when the difference was first seen
}

// MirrorOptions are what a Mirror needs. All are required.
type MirrorOptions struct {
	Instance string // its id, new at every start
	Addr     string // where it serves, for people
	Redis    Redis
	Log      *slog.Logger
}

// NewMirror makes a mirror and the sockets it copies. It does nothing before Open.
func NewMirror(o MirrorOptions) (*Mirror, *Sockets) {
	host, _ := os.Hostname() // for people only: empty if unknown
	now := time.Now()
	startedAt := now.UTC().Truncate(time.Millisecond)
	m := &Mirror{
		instance: o.Instance,
		redis:    o.Redis,
		log:      o.Log,
		started:  now,
		record:   Record{ID: o.Instance, Host: host, Addr: o.Addr, StartedAt: startedAt, State: "live"},
	}
	m.redis.unreadable = &m.unreadable
	m.sockets = NewSockets(o.Redis, m.markChanged)
	for i := range o.Redis.Keys.Shards() {
		m.shards = append(m.shards, newShard(i, m))
	}
	return m, m.sockets
}

// Open takes the first lease in every shard and agrees with the other instances on the number of shards.
func (m *Mirror) Open(ctx context.Context) error {
	if err := m.agree(ctx); err != nil {
		return err
	}
	for _, s := range m.shards {
		if err := s.openLease(ctx); err != nil {
			return err
		}
	}
	return m.agree(ctx) // once more: before the lease, the record may have been removed as a dead instance's
}

// Run mirrors until the context ends. When it returns it has ended the leases. What it last wrote stays:
// every user who had a socket here has the grace to come back.
func (m *Mirror) Run(ctx context.Context) {
	for _, s := range m.shards {
		m.loops.Go(func() { s.run(ctx) })
	}
	m.loops.Go(func() { m.sockets.endGraces(ctx) })
	m.loops.Go(func() { m.auditLoop(ctx) })
	m.loops.Wait()
}

// Join adds a socket and waits until every instance can find it. If the context ends first, it returns false,
// and the connection's Reachable is called when they can.
func (m *Mirror) Join(ctx context.Context, socket *Socket) (reachable bool) {
	m.sockets.Add(socket)
	if socket.User == "" {
		return true // anonymous sockets are not mirrored
	}
	writes := &m.shardOf(socket.User).writes
	seq := writes.lastSeq()
	return writes.waitFlushed(ctx, seq) || !writes.awaitReachable(socket, seq)
}

// Leave removes a socket. onPurpose: its client said that it will not be back.
func (m *Mirror) Leave(socket *Socket, onPurpose bool) {
	m.sockets.Remove(socket, onPurpose)
	if socket.User != "" {
		m.shardOf(socket.User).writes.forget(socket)
	}
}

// Retire makes sockets count no more. It waits until no instance finds them, or the context ends.
func (m *Mirror) Retire(ctx context.Context, sockets []*Socket) error {
	seqs := map[*shard]uint64{}
	for _, socket := range sockets {
		if m.sockets.Retire(socket); socket.User != "" {
			s := m.shardOf(socket.User)
			seqs[s] = s.writes.lastSeq()
		}
	}
	for s, seq := range seqs {
		if !s.writes.waitFlushed(ctx, seq) {
			return fmt.Errorf("presence: retire sockets of shard %d: %w", s.index, context.Cause(ctx))
		}
	}
	return nil
}

// MarkDirty makes the mirror tell Redis of a user once more. Call it when Redis turned out to be wrong, for
// example when a push came for a user who has no socket here.
func (m *Mirror) MarkDirty(user string) {
	// A user who is here was mirrored before, or is still marked as new, and that mark counts. Without this,
	// a user who has dropped here and then left on another instance would get a new grace.
	here := m.sockets.Count(user).Kind != Gone
	m.shardOf(user).writes.mark(user, dirtyUser{mirroredBefore: here})
}

// Remirror makes the mirror tell Redis of all users of a shard once more. Call it when this instance did not
// get for a while what was sent to it.
func (m *Mirror) Remirror(shard int) { m.shards[shard].markAllDirty() }

// Incarnation is the one under which the users of a shard are mirrored now, for example 7f3a9c1e.3; empty
// before Open.
func (m *Mirror) Incarnation(shard int) string { return m.shards[shard].currentIncarnation() }

// RecoveringFromLoss says whether Redis lost the data of a shard so lately that other instances may not have
// told it of their users again.
func (m *Mirror) RecoveringFromLoss(shard int) bool { return m.shards[shard].recoveringFromLoss() }

// Heartbeats is how many heartbeats were sent through the instance's channel in a shard since the last call.
func (m *Mirror) Heartbeats(shard int) int64 { return m.shards[shard].heartbeats.Swap(0) }

// markChanged marks a user whose count has changed. Sockets calls it under the lock of a stripe.
func (m *Mirror) markChanged(c countChange) {
	dirty := dirtyUser{changedAt: c.at, leftOnPurpose: c.leftOnPurpose, mirroredBefore: !c.came}
	m.shardOf(c.user).writes.mark(c.user, dirty)
}

func (m *Mirror) shardOf(user string) *shard { return m.shards[m.redis.Keys.ShardOf(user)] }
