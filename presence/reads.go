package presence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// lookup reads users of one shard, in the order asked, at one moment of Redis' clock (ms), and the leases of that moment.
func (r Redis) lookup(ctx context.Context, shard int, names []string) (users []User, leases Leases, now int64, err error) {
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Seen(shard)}
	reply, err := r.Exec(ctx, lua.Lookup, keys, names).ToArray()
	if err != nil {
		return nil, nil, 0, fmt.Errorf("presence: look up %d users in shard %d: %w", len(names), shard, err)
	}
	if now, leases, err = r.readMoment(reply); err != nil {
		return nil, nil, 0, err
	}
	entries, err := reply[2].ToArray()
	if err != nil {
		return nil, nil, 0, fmt.Errorf("presence: look up in shard %d: %w", shard, err)
	}
	seen, err := reply[3].ToArray()
	if err != nil {
		return nil, nil, 0, fmt.Errorf("presence: look up in shard %d: %w", shard, err)
	}
	users = make([]User, len(names))
	for i, name := range names {
		if users[i], err = r.readUser(name, entries[i], leases, now); err != nil {
			return nil, nil, 0, err
		}
		if at, err := seen[i].AsFloat64(); err == nil && users[i].State != Online {
			users[i].LastSeen = max(users[i].LastSeen, Moment(at))
		}
	}
	return users, leases, now, nil
}

// ownersStep is one step through the owners of a shard.
type ownersStep struct {
	users  []User
	leases Leases
	now    int64  // ms
	next   uint64 // 0: there is no more
}

func (r Redis) page(ctx context.Context, shard int, cursor uint64, count int) (ownersStep, error) {
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard)}
	reply, err := r.Exec(ctx, lua.Page, keys, []string{strconv.FormatUint(cursor, 10), strconv.Itoa(count)}).ToArray()
	if err != nil {
		return ownersStep{}, fmt.Errorf("presence: page through shard %d: %w", shard, err)
	}
	now, leases, err := r.readMoment(reply)
	if err != nil {
		return ownersStep{}, err
	}
	step := ownersStep{leases: leases, now: now}
	if step.next, err = reply[2].AsUint64(); err != nil {
		return ownersStep{}, fmt.Errorf("presence: page through shard %d: %w", shard, err)
	}
	flat, err := reply[3].ToArray()
	if err != nil {
		return ownersStep{}, fmt.Errorf("presence: page through shard %d: %w", shard, err)
	}
	for i := 0; i+1 < len(flat); i += 2 {
		name, err := flat[i].ToString()
		if err != nil {
			return ownersStep{}, fmt.Errorf("presence: page through shard %d: %w", shard, err)
		}
		u, err := r.readUser(name, flat[i+1], leases, now)
		if err != nil {
			return ownersStep{}, err
		}
		step.users = append(step.users, u)
	}
	return step, nil
}

// instances reads the records, by id, each with the state its lease gives it.
func (r Redis) instances(ctx context.Context) ([]Record, error) {
	reply, err := r.Exec(ctx, lua.Instances, []string{r.Keys.Instances(), r.Keys.Leases(0)}, nil).ToArray()
	if err != nil {
		return nil, fmt.Errorf("presence: instances: %w", err)
	}
	now, leases, err := r.readMoment(reply)
	if err != nil {
		return nil, err
	}
	standing := map[string]LeaseStatus{}
	for token := range leases {
		instance, _, _ := strings.Cut(token, ".")
		standing[instance] = max(standing[instance], leases.Status(token, now, r.Grace))
	}
	texts, err := reply[2].AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("presence: instances: %w", err)
	}
	records := []Record{}
	for _, text := range texts {
		var record Record
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			r.passOver()
			continue
		}
		switch standing[record.ID] {
		case Dead:
			continue
		case Expired:
			record.State = lapsedState(record.State)
		}
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	return records, nil
}

// lapsedState tells an instance that said it would leave from one that fell silent.
func lapsedState(last string) string {
	if last == "draining" {
		return "left"
	}
	return "lost"
}

func (r Redis) count(ctx context.Context) (present, now int64, leases Leases, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, r.Keys.Shards())
	for shard := range r.Keys.Shards() {
		commands = append(commands, r.Client.B().Hlen().Key(r.Keys.Owners(shard)).Build())
	}
	for _, reply := range r.Client.DoMulti(ctx, commands...) {
		n, err := reply.AsInt64()
		if err != nil {
			return 0, 0, nil, fmt.Errorf("presence: count: %w", err)
		}
		present += n
	}
	_, leases, now, err = r.lookup(ctx, 0, []string{""}) // nobody is called that; TIME alone might ask a node of a Cluster that is dead
	return present, now, leases, err
}

// readUser reads one entry. A user without one, or with one that can't be read, is offline.
func (r Redis) readUser(name string, message rueidis.RedisMessage, leases Leases, now int64) (User, error) {
	if message.IsNil() {
		return entry{}.user(name, leases, now, r.Grace), nil
	}
	text, err := message.ToString()
	if err != nil {
		return User{}, fmt.Errorf("presence: entry of %q: %w", name, err)
	}
	e, ok := parseEntry(text)
	if !ok {
		r.passOver()
	}
	return e.user(name, leases, now, r.Grace), nil
}

// readMoment reads what the reading scripts' answers begin with: the time (ms) and the leases.
func (r Redis) readMoment(reply []rueidis.RedisMessage) (now int64, leases Leases, err error) {
	if now, err = reply[0].AsInt64(); err != nil {
		return 0, nil, fmt.Errorf("presence: read the time: %w", err)
	}
	flat, err := reply[1].ToArray()
	if err != nil {
		return 0, nil, fmt.Errorf("presence: read the leases: %w", err)
	}
	leases, err = r.leasesFrom(flat)
	return now, leases, err
}
