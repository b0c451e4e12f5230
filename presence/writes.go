package presence

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// ErrRedisFull says that Redis has reached its maxmemory, and refused to write.
var ErrRedisFull = lua.ErrFull

// leaseAnswer is what a renewal of a lease brings back.
type leaseAnswer struct {
	now    int64 // by Redis' clock, ms
	full   bool  // Redis has no room for more; the lease is written all the same
	leases storedLeases
}

// lease opens (version empty), renews or ends (lifetime 0) a lease, and fences earlier incarnations.
// lua.ErrStaleLease: Redis holds another version of it, or none.
func (r Redis) lease(
	ctx context.Context, shard int, own incarnation, version string, lifetime time.Duration, fenced []string,
) (leaseAnswer, error) {
	channel := r.Keys.Channels(shard) + own.instance
	args := append([]string{own.String(), version, millis(lifetime), millis(r.Grace),
		r.PublishCommand(), channel, Heartbeat}, fenced...)
	reply := r.run(ctx, lua.Lease, shard, []string{r.Keys.Leases(shard), r.Keys.Clock(shard)}, args)
	reply.status()
	answer := leaseAnswer{now: reply.int(), full: reply.int() == 1, leases: r.leasesIn(reply.rest())}
	return answer, reply.err
}

// mirror writes changes under a lease, and renews it. lua.ErrStaleLease: Redis holds another version of it,
// or none.
func (r Redis) mirror(
	ctx context.Context, shard int, own incarnation, version int64, changes []change,
) error {
	slices.SortStableFunc(changes, mirroredBeforeFirst)
	before := 0
	for before < len(changes) && changes[before].mirroredBefore {
		before++
	}
	args := make([]string, 0, 8+3*len(changes))
	args = append(args, own.String(), strconv.FormatInt(version, 10), millis(r.Lease), millis(r.Grace),
		strconv.Itoa(r.LogCap), millis(r.SeenFor), r.seenCap(), strconv.Itoa(before))
	now := time.Now()
	for _, c := range changes {
		args = append(args, c.user, c.count.String(), millis(now.Sub(c.at)))
	}
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Log(shard), r.Keys.Seen(shard),
		r.Keys.Clock(shard)}
	reply := r.run(ctx, lua.Mirror, shard, keys, args)
	reply.status()
	return reply.err
}

func mirroredBeforeFirst(a, b change) int {
	switch {
	case a.mirroredBefore == b.mirroredBefore:
		return 0
	case a.mirroredBefore:
		return -1
	}
	return 1
}

// version reads how many writes of mirror.lua Redis has counted under a lease. lua.ErrStaleLease: Redis holds
// no such lease.
func (r Redis) version(ctx context.Context, shard int, own incarnation) (int64, error) {
	reply := r.do(ctx, shard, r.Client.B().Hget().Key(r.Keys.Leases(shard)).Field(own.String()).Build())
	text := reply.text()
	if errors.Is(reply.err, rueidis.Nil) {
		return 0, lua.ErrStaleLease
	}
	if reply.err != nil {
		return 0, reply.err
	}
	lease, ok := parseLease(text)
	if !ok {
		r.countUnreadable(1)
		return 0, lua.ErrStaleLease
	}
	return lease.version, nil
}

// sweepStep is where a pass through the owners of a shard stands.
type sweepStep struct {
	cursor string
	dead   []string // the incarnations that were dead when the pass began
}

// sweep takes one step, and returns the step to take next (nil: the pass is over) and how many entries it
// dropped something from.
func (r Redis) sweep(
	ctx context.Context, shard int, from *sweepStep,
) (next *sweepStep, dropped int64, err error) {
	args := append([]string{from.cursor, "1000", millis(r.Grace), strconv.Itoa(r.LogCap), millis(r.SeenFor),
		r.seenCap()}, from.dead...)
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Log(shard), r.Keys.Seen(shard)}
	reply := r.run(ctx, lua.Sweep, shard, keys, args)
	next = &sweepStep{cursor: reply.text()}
	dropped = reply.int()
	next.dead = reply.rest()
	if reply.err != nil || next.cursor == "0" {
		return nil, dropped, reply.err
	}
	return next, dropped, nil
}

// announce writes this instance's record and returns the number of shards on which all agree. If it is
// another than ours, the error is lua.ErrOtherShards.
func (r Redis) announce(ctx context.Context, instance, record string) (agreed int, err error) {
	keys := []string{r.Keys.Instances(), r.Keys.Leases(0), r.Keys.AgreedShards()}
	reply := r.run(ctx, lua.Announce, 0, keys, []string{instance, record, strconv.Itoa(r.Keys.Shards())})
	status := lua.Status(reply.int())
	if agreed = int(reply.int()); reply.err != nil {
		return 0, reply.err
	}
	return agreed, status.Err()
}

// leasesIn reads incarnation, lease, incarnation, lease, …
func (r Redis) leasesIn(flat []string) storedLeases {
	leases, unreadable := parseLeases(flat)
	r.countUnreadable(unreadable)
	return leases
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
