package presence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// snapshot is what the answer of every reading script begins with: Redis' time, and the leases of that time.
type snapshot struct {
	now    int64 // ms
	leases storedLeases
}

func (r Redis) snapshotIn(p *reply) snapshot {
	now := p.int()
	return snapshot{now, r.leasesIn(p.texts())}
}

// lookup reads users of one shard, in the order of their names.
func (r Redis) lookup(ctx context.Context, shard int, names []string) (users []User, at snapshot, err error) {
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard), r.Keys.Seen(shard)}
	reply := r.run(ctx, lua.Lookup, shard, keys, names)
	at = r.snapshotIn(reply)
	entries, seen := reply.texts(), reply.texts()
	if reply.err != nil {
		return nil, snapshot{}, reply.err
	}
	users = make([]User, len(names))
	for i, name := range names {
		users[i] = r.userIn(name, entries[i], at)
		if score, err := strconv.ParseFloat(seen[i], 64); err == nil && users[i].State != Online {
			users[i].LastSeen = max(users[i].LastSeen, Moment(score))
		}
	}
	return users, at, nil
}

// ownersStep is one step through the owners of a shard.
type ownersStep struct {
	users []User
	at    snapshot
	next  uint64 // 0: there is no more
}

func (r Redis) page(ctx context.Context, shard int, cursor uint64, count int) (ownersStep, error) {
	keys := []string{r.Keys.Owners(shard), r.Keys.Leases(shard)}
	reply := r.run(ctx, lua.Page, shard, keys, []string{strconv.FormatUint(cursor, 10), strconv.Itoa(count)})
	step := ownersStep{at: r.snapshotIn(reply), next: reply.cursor()}
	for entries := reply.texts(); len(entries) >= 2; entries = entries[2:] { // user, entry, …
		step.users = append(step.users, r.userIn(entries[0], entries[1], step.at))
	}
	return step, reply.err
}

// userIn reads one entry. A user without one (empty), or with one that is not readable, is offline.
func (r Redis) userIn(name, text string, at snapshot) User {
	e, ok := parseEntry(text)
	if !ok && text != "" {
		r.countUnreadable(1)
	}
	return e.user(name, at.leases, at.now, r.Grace)
}

// instances reads the records of all instances that are not dead, by id, each with the state that its lease
// gives it.
func (r Redis) instances(ctx context.Context) ([]Record, error) {
	reply := r.run(ctx, lua.Instances, 0, []string{r.Keys.Instances(), r.Keys.Leases(0)}, nil)
	at, texts := r.snapshotIn(reply), reply.texts()
	if reply.err != nil {
		return nil, reply.err
	}
	statuses := map[string]leaseStatus{} // of each instance: the best of its incarnations
	for incarnation, lease := range at.leases {
		instance := instanceOf(incarnation)
		statuses[instance] = max(statuses[instance], lease.status(at.now, r.Grace))
	}
	records := []Record{}
	for _, text := range texts {
		var record Record
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			r.countUnreadable(1)
			continue
		}
		switch statuses[record.ID] {
		case dead:
			continue
		case expired:
			record.State = expiredState(record.State)
		}
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	return records, nil
}

// expiredState is the state of an instance whose lease has expired: whether it said that it would leave.
func expiredState(last string) string {
	if last == "draining" {
		return "left"
	}
	return "lost"
}

// count counts the users in all shards who are present.
func (r Redis) count(ctx context.Context) (present int64, at snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, r.Keys.Shards())
	for shard := range r.Keys.Shards() {
		commands = append(commands, r.Client.B().Hlen().Key(r.Keys.Owners(shard)).Build())
	}
	for shard, answer := range r.Client.DoMulti(ctx, commands...) {
		users, err := answer.AsInt64()
		if err != nil {
			return 0, snapshot{}, fmt.Errorf("presence: HLEN in shard %d: %w", shard, err)
		}
		present += users
	}
	// The time and the leases come from a lookup of nobody in shard 0, since TIME may ask a node of a Cluster
	// that is dead.
	_, at, err = r.lookup(ctx, 0, []string{""})
	return present, at, err
}
