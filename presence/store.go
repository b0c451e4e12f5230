package presence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// ErrRedisFull says that Redis has reached its maxmemory, and refused to write.
var ErrRedisFull = lua.ErrFull

// leaseAnswer is what a heartbeat brings back.
type leaseAnswer struct {
	leases Leases
	now    int64 // of Redis' clock, ms
	full   bool  // Redis has no room for more; the lease is written all the same
}

func (r Redis) lease(ctx context.Context, shard int, token Incarnation, version string, lifetime time.Duration, condemned []string) (leaseAnswer, error) {
	args := append([]string{token.String(), version, millis(lifetime), millis(r.Grace),
		r.PublishCommand(), r.Keys.Channels(shard) + token.Instance, Heartbeat}, condemned...)
	keys := []string{r.Keys.Leases(shard), r.Keys.Clock(shard)}
	reply, err := lua.Check(r.Exec(ctx, lua.Lease, keys, args))
	if err != nil {
		return leaseAnswer{}, fmt.Errorf("presence: lease of %s in shard %d: %w", token, shard, err)
	}
	now, err := reply[1].AsInt64()
	if err != nil {
		return leaseAnswer{}, fmt.Errorf("presence: lease of %s in shard %d: %w", token, shard, err)
	}
	full, err := reply[2].AsInt64()
	if err != nil {
		return leaseAnswer{}, fmt.Errorf("presence: lease of %s in shard %d: %w", token, shard, err)
	}
	leases, err := r.leasesFrom(reply[3:])
	return leaseAnswer{leases, now, full == 1}, err
}

func (r Redis) mirror(ctx context.Context, shard int, token Incarnation, version int64, changes []change) error {
	slices.SortStableFunc(changes, mirroredBeforeFirst)
	known := 0
	for known < len(changes) && changes[known].mirroredBefore {
		known++
	}
	args := make([]string, 0, 8+3*len(changes))
	args = append(args, token.String(), strconv.FormatInt(version, 10), millis(r.Lease), millis(r.Grace),
		strconv.Itoa(r.LogCap), millis(r.SeenFor), r.seenCap(), strconv.Itoa(known))
	now := time.Now()
	for _, c := range changes {
		args = append(args, c.user, c.count.String(), millis(now.Sub(c.at)))
	}
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Log(shard), r.Keys.Seen(shard), r.Keys.Clock(shard)}
	if _, err := lua.Check(r.Exec(ctx, lua.Mirror, keys, args)); err != nil {
		return fmt.Errorf("presence: mirror %d users of shard %d: %w", len(changes), shard, err)
	}
	return nil
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

// version reads how many mirror writes Redis has counted under a lease; lua.ErrStaleLease if there is none.
func (r Redis) version(ctx context.Context, shard int, token Incarnation) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	lease, err := r.Client.Do(ctx, r.Client.B().Hget().Key(r.Keys.Leases(shard)).Field(token.String()).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return 0, lua.ErrStaleLease
	}
	if err != nil {
		return 0, fmt.Errorf("presence: version of %s in shard %d: %w", token, shard, err)
	}
	read, ok := parseLease(lease)
	if !ok {
		r.passOver()
		return 0, lua.ErrStaleLease
	}
	return read.version, nil
}

// sweep takes one step and returns what to give to the next; nil after the last.
func (r Redis) sweep(ctx context.Context, shard int, from *sweepStep) (next *sweepStep, dropped int64, err error) {
	args := append([]string{from.cursor, "1000", millis(r.Grace), strconv.Itoa(r.LogCap), millis(r.SeenFor), r.seenCap()},
		from.dead...)
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Log(shard), r.Keys.Seen(shard)}
	reply, err := r.Exec(ctx, lua.Sweep, keys, args).ToArray()
	if err != nil {
		return nil, 0, fmt.Errorf("presence: sweep shard %d: %w", shard, lua.WithFull(err))
	}
	next = &sweepStep{}
	if next.cursor, err = reply[0].ToString(); err != nil {
		return nil, 0, fmt.Errorf("presence: sweep shard %d: %w", shard, err)
	}
	if dropped, err = reply[1].AsInt64(); err != nil {
		return nil, 0, fmt.Errorf("presence: sweep shard %d: %w", shard, err)
	}
	if next.cursor == "0" {
		return nil, dropped, nil
	}
	for _, token := range reply[2:] {
		name, err := token.ToString()
		if err != nil {
			return nil, 0, fmt.Errorf("presence: sweep shard %d: %w", shard, err)
		}
		next.dead = append(next.dead, name)
	}
	return next, dropped, nil
}

// sweepStep is where a pass through the owners of a shard stands.
type sweepStep struct {
	cursor string
	dead   []string // the tokens that were dead when the pass began
}

// announce writes this instance's record and returns the number of shards on which all agree. If it is another
// than ours, the error is lua.ErrOtherShards.
func (r Redis) announce(ctx context.Context, instance, record string) (agreed int, err error) {
	keys := []string{r.Keys.Instances(), r.Keys.Leases(0), r.Keys.AgreedShards()}
	reply, refusal := lua.Check(r.Exec(ctx, lua.Announce, keys, []string{instance, record, strconv.Itoa(r.Keys.Shards())}))
	if refusal != nil && !errors.Is(refusal, lua.ErrOtherShards) {
		return 0, fmt.Errorf("presence: announce: %w", refusal)
	}
	shards, err := reply[1].AsInt64()
	if err != nil {
		return 0, fmt.Errorf("presence: announce: %w", err)
	}
	return int(shards), refusal
}

func (r Redis) leasesFrom(flat []rueidis.RedisMessage) (Leases, error) {
	words, err := stringsFrom(flat)
	if err != nil {
		return nil, err
	}
	leases, unreadable := parseLeases(words)
	for range unreadable {
		r.passOver()
	}
	return leases, nil
}

func stringsFrom(messages []rueidis.RedisMessage) ([]string, error) {
	words := make([]string, len(messages))
	for i, message := range messages {
		word, err := message.ToString()
		if err != nil {
			return nil, fmt.Errorf("presence: %w", err)
		}
		words[i] = word
	}
	return words, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
