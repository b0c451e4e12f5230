package presence

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"
)

// MaxLookup is how many users one Lookup may ask about.
const MaxLookup = 1000

// User is the presence of one user.
type User struct {
	Name      string   `json:"user"`
	State     State    `json:"state"`
	Since     Moment   `json:"since"`    // when the user came; short drops do not count. Never: not present
	LastSeen  Moment   `json:"lastSeen"` // when last known to be online; Never: unknown, or too long ago
	Sockets   int      `json:"sockets"`  // under live leases
	Instances []string `json:"instances"`
}

// Answer is what a read of presence returns.
type Answer struct {
	Users []User `json:"users"`
	Next  string `json:"next,omitempty"` // the cursor of the next page; empty on the last
	AsOf  Moment `json:"asOf"`           // by Redis' clock; by the instance's own if Redis could not be asked
	Stale bool   `json:"stale"`          // Redis could not be asked, or has just lost its data
}

// Directory answers who is online.
type Directory struct {
	// static after construction
	instance string
	redis    Redis
	sockets  *Sockets
	shards   []*shard
	log      *slog.Logger
}

// Directory answers from what all instances have mirrored.
func (m *Mirror) Directory() *Directory {
	return &Directory{instance: m.instance, redis: m.redis, sockets: m.sockets, shards: m.shards, log: m.log}
}

// errStateLost says that Redis answers, and has lost what it held.
var errStateLost = errors.New("presence: redis does not hold this instance's lease")

// lookupsAtOnce is how many shards one Lookup asks at a time.
const lookupsAtOnce = 16

// Lookup returns some users (at most MaxLookup), offline ones too, in the order of their names. If a shard
// can't be asked, the answer is stale: of its users, those with sockets here are online, and the others
// unknown. If a shard has just lost its state, the same goes for those of its users whom Redis does not show
// online.
func (d *Directory) Lookup(ctx context.Context, names []string) Answer {
	byShard := map[int][]int{} // shard → places in names
	for i, name := range names {
		shard := d.redis.Keys.ShardOf(name)
		byShard[shard] = append(byShard[shard], i)
	}
	ctx, cancel := context.WithTimeout(ctx, d.redis.Timeout) // for all shards together, in case Redis hangs
	defer cancel()
	var mu sync.Mutex // guards the answer
	answer := Answer{Users: make([]User, len(names))}
	var lookups errgroup.Group
	lookups.SetLimit(lookupsAtOnce)
	for shard, places := range byShard {
		lookups.Go(func() error {
			users, asOf, stale := d.lookupIn(ctx, shard, names, places)
			mu.Lock()
			defer mu.Unlock()
			for i, place := range places {
				answer.Users[place] = users[i]
			}
			answer.Stale = answer.Stale || stale
			if asOf != Never && (answer.AsOf == Never || asOf < answer.AsOf) {
				answer.AsOf = asOf // the earliest: a later change may be missing in what was read first
			}
			return nil
		})
	}
	_ = lookups.Wait() // none returns an error
	if answer.AsOf == Never {
		answer.AsOf = thisMoment()
	}
	return answer
}

// lookupIn returns the users at some places of names, which are all in one shard. asOf is Never if the shard
// could not be asked.
func (d *Directory) lookupIn(
	ctx context.Context, shard int, names []string, places []int,
) (users []User, asOf Moment, stale bool) {
	asked := make([]string, len(places))
	for i, place := range places {
		asked[i] = names[place]
	}
	users, at, err := d.redis.lookup(ctx, shard, asked)
	if err != nil {
		d.logRefusal(err)
		users = make([]User, len(asked))
		for i, name := range asked {
			users[i] = d.localUser(name)
		}
		return users, Never, true
	}
	stateLost := !d.holdsOwnLease(shard, at) || d.shards[shard].recoveringFromLoss()
	for i, name := range asked {
		if stateLost && users[i].State != Online {
			users[i], stale = d.localUser(name), true
		}
	}
	return users, Moment(at.now), stale
}

// holdsOwnLease says whether Redis held this instance's lease in a shard at that moment. If it did not, it
// has lost its data, and may lack users.
func (d *Directory) holdsOwnLease(shard int, at snapshot) bool {
	return at.leases.status(d.shards[shard].currentIncarnation(), at.now, d.redis.Grace) == live
}

// Count counts the users who are present: online or reconnecting. It costs one command for each shard. Users
// of a dead instance count until they are swept. If Redis can't be asked, the answer is stale and counts the
// users with sockets here. It is stale too if Redis has just lost its state.
func (d *Directory) Count(ctx context.Context) (present int64, asOf Moment, stale bool) {
	present, at, err := d.redis.count(ctx)
	if err != nil {
		d.logRefusal(err)
		_, users := d.sockets.Totals()
		return int64(users), thisMoment(), true
	}
	stale = !d.holdsOwnLease(0, at) || slices.ContainsFunc(d.shards, (*shard).recoveringFromLoss)
	return present, Moment(at.now), stale
}

// Instances lists the instances that have a lease, by id. The counts of the others are as old as the last
// renewal of their leases. It fails if Redis can't be asked, or has just lost its state.
func (d *Directory) Instances(ctx context.Context) ([]Record, error) {
	records, err := d.redis.instances(ctx)
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(records, func(r Record) bool { return r.ID == d.instance })
	if own < 0 {
		return nil, errStateLost
	}
	records[own].Sockets, records[own].Users = d.sockets.Totals()
	return records, nil
}

// localUser is what this instance knows about a user without asking Redis.
func (d *Directory) localUser(name string) User {
	u := User{Name: name, State: Unknown, Instances: []string{}}
	if n := d.sockets.Count(name).Sockets; n > 0 {
		u.State, u.Sockets, u.Instances, u.LastSeen = Online, n, []string{d.instance}, thisMoment()
	}
	return u
}

// logRefusal logs why a read is stale if Redis itself refused it. If Redis is unreachable, the mirror logs
// that.
func (d *Directory) logRefusal(err error) {
	var refusal *rueidis.RedisError
	if errors.As(err, &refusal) {
		d.log.Warn("a read is stale", "error", err)
	}
}
