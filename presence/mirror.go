package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"rollcall/lua"
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

	draining atomic.Bool
	live     atomic.Int64 // instances with a live lease, as of the last renewal of ours; 0 before it
	loops    sync.WaitGroup

	auditing sync.Mutex
	// auditing guards the following
	differences map[string]time.Time // that the last audit found: user → when the difference was first seen

	errors, remirrors, unreadable atomic.Int64 // since the start

	found, oldest atomic.Int64 // differences that audits found since the start; the age of the oldest one known, ns
}

// MirrorOptions are what a Mirror needs. All are required.
type MirrorOptions struct {
	Instance string // its id, new at every start
	Addr     string // where it serves, for people
	Redis    Redis
	Log      *slog.Logger
}

// Record describes an instance to people.
type Record struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Addr      string    `json:"addr"`
	StartedAt time.Time `json:"startedAt"` // by the instance's own clock
	Sockets   int       `json:"sockets"`
	Users     int       `json:"users"` // with at least one socket there
	State     string    `json:"state"` // live, draining, left, or lost: its lease lapsed without a word
}

// NewMirror makes a mirror and the sockets it copies. It does nothing before Open.
func NewMirror(o MirrorOptions) (*Mirror, *Sockets) {
	host, _ := os.Hostname() // for people only: empty if unknown
	now := time.Now()
	m := &Mirror{
		instance: o.Instance,
		redis:    o.Redis,
		log:      o.Log,
		started:  now,
		record:   Record{ID: o.Instance, Host: host, Addr: o.Addr, StartedAt: now.UTC().Truncate(time.Millisecond), State: "live"},
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
	return m.agree(ctx) // once more: without a lease, the first record may have been taken for a dead one's
}

func (m *Mirror) agree(ctx context.Context) error {
	agreed, err := m.announce(ctx)
	if errors.Is(err, lua.ErrOtherShards) {
		return fmt.Errorf("presence: the instances on this Redis use %d shards, this one is set to %d: set --shards to %d, or use another --prefix",
			agreed, len(m.shards), agreed)
	}
	return err
}

// Run mirrors until the context ends, and has ended the leases when it returns: what it last wrote stays, and every user who had a
// socket here has the grace to come back.
func (m *Mirror) Run(ctx context.Context) {
	for _, s := range m.shards {
		m.loops.Go(func() { s.run(ctx) })
	}
	m.loops.Go(func() { m.sockets.EndGraces(ctx) })
	m.loops.Go(func() { m.auditLoop(ctx) })
	m.loops.Wait()
}

// Join adds a socket and waits until every instance can find it, or the context ends: then it returns false, and the socket's
// connection is told as soon as it is so.
func (m *Mirror) Join(ctx context.Context, socket *Socket) (reachable bool) {
	m.sockets.Add(socket)
	if socket.User == "" {
		return true // nothing of it is mirrored
	}
	writes := &m.shardOf(socket.User).writes
	seq := writes.lastSeq()
	return writes.waitFlushed(ctx, seq) || !writes.awaitReachable(socket, seq)
}

// Leave removes a socket. onPurpose: its client said it will not be back.
func (m *Mirror) Leave(socket *Socket, onPurpose bool) {
	m.sockets.Remove(socket, onPurpose)
	if socket.User != "" {
		m.shardOf(socket.User).writes.forget(socket)
	}
}

// Retire makes sockets count no more, and waits until no instance finds them any more, or the context ends.
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

// MarkDirty has Redis told of a user once more: somebody saw that Redis had it wrong.
func (m *Mirror) MarkDirty(user string) { m.shardOf(user).writes.mark(user, dirtyUser{}) }

// Remirror has Redis told of all users of a shard once more: for a while, this instance did not get what was sent to
// it.
func (m *Mirror) Remirror(shard int) { m.shards[shard].markAllDirty() }

// Incarnation is the one under which a shard's users are mirrored now; empty before Open.
func (m *Mirror) Incarnation(shard int) string { return m.shards[shard].currentIncarnation() }

// RecoveringFromLoss says whether Redis has lost the data of a shard so lately that other instances may not have told
// it theirs again.
func (m *Mirror) RecoveringFromLoss(shard int) bool { return m.shards[shard].recoveringFromLoss() }

// Heartbeats is how many heartbeats were sent through the instance's channel in a shard since the last call.
func (m *Mirror) Heartbeats(shard int) int64 { return m.shards[shard].heartbeats.Swap(0) }

// Drain marks this instance as one that is about to leave, here and, if Redis can be told within the context, for all others.
func (m *Mirror) Drain(ctx context.Context) {
	m.draining.Store(true)
	if _, err := m.announce(ctx); err != nil {
		m.log.Warn("the others are not told that this instance drains", "error", err)
	}
}

// Stats are how the mirror does now.
type Stats struct {
	Dirty     int           // users whose count is to be written
	Lag       time.Duration // since when the oldest of them waits
	Trust     time.Duration // how much longer other instances believe this one, in the shard where that ends first; not above 0: not
	Errors    int64         // failed calls of Redis since the start
	Remirrors int64         // times that Redis had lost its state, and a shard was mirrored again

	Unreadable int64 // entries, leases and records that were read and made no sense, each time, since the start
	Full       bool  // Redis has no room for more
}

// Stats tells how the mirror does now.
func (m *Mirror) Stats() Stats {
	now := time.Now()
	stats := Stats{Trust: m.redis.Lease, Errors: m.errors.Load(), Remirrors: m.remirrors.Load(),
		Unreadable: m.unreadable.Load()}
	for _, s := range m.shards {
		dirty, lag := s.writes.lag(now)
		stats.Dirty += dirty
		stats.Lag = max(stats.Lag, lag)
		stats.Full = stats.Full || s.full.Load()
		stats.Trust = min(stats.Trust, s.trusted(now))
	}
	return stats
}

// LeaseHeld says whether the lease in a shard certainly holds, so that other instances believe this one.
func (m *Mirror) LeaseHeld(shard int) bool { return m.shards[shard].leaseHeld(time.Now()) }

// NotReadyReason says why other instances do not believe this one now, or what will soon go wrong; empty if nothing
// is.
func (m *Mirror) NotReadyReason() string {
	full := false
	for shard, s := range m.shards {
		switch {
		case !m.LeaseHeld(shard) && s.full.Load():
			return leaseExpired(shard, "full (maxmemory)")
		case !m.LeaseHeld(shard):
			return leaseExpired(shard, "out of reach")
		}
		full = full || s.full.Load()
	}
	if full {
		return "Redis is full (maxmemory): presence and pushes go on, requests with an Idempotency-Key are refused; " +
			"give it more memory, or remove what else it holds"
	}
	return ""
}

func leaseExpired(shard int, redisIs string) string {
	const lapsed = "its lease in shard %d has lapsed, for Redis is %s: other instances do not find its sockets"
	return fmt.Sprintf(lapsed, shard, redisIs)
}

// LiveInstances is how many instances have a live lease, as of the last renewal of ours. At least one.
func (m *Mirror) LiveInstances() int { return int(max(1, m.live.Load())) }

// markChanged has Redis told of a user whose count has changed.
func (m *Mirror) markChanged(c countChange) {
	dirty := dirtyUser{changedAt: c.at, leftOnPurpose: c.leftOnPurpose, mirroredBefore: !c.came}
	m.shardOf(c.user).writes.mark(c.user, dirty)
}

func (m *Mirror) shardOf(user string) *shard { return m.shards[m.redis.Keys.ShardOf(user)] }

func (m *Mirror) announce(ctx context.Context) (agreedShards int, err error) {
	record := m.record
	record.Sockets, record.Users = m.sockets.Totals()
	if m.draining.Load() {
		record.State = "draining"
	}
	text, err := json.Marshal(record)
	if err != nil {
		return 0, fmt.Errorf("presence: announce: %w", err)
	}
	return m.redis.announce(ctx, m.instance, string(text))
}
