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

// User is what there is to say of one user.
type User struct {
	Name      string   `json:"user"`
	State     State    `json:"state"`
	Since     Moment   `json:"since"`    // when the user came, whatever short drops there were since; Never if not present
	LastSeen  Moment   `json:"lastSeen"` // the last moment known to be online; Never if there is none, or it was too long ago
	Sockets   int      `json:"sockets"`  // under live leases
	Instances []string `json:"instances"`
}

// Answer is what a read of presence brings.
type Answer struct {
	Users []User `json:"users"`
	Next  string `json:"next,omitempty"` // the cursor of the next page; empty on the last
	AsOf  Moment `json:"asOf"`           // by Redis' clock; by the instance's own if stale
	Stale bool   `json:"stale"`          // Redis could not be asked, or has just lost what it held: this is what the instance knows by itself
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

// Directory of what all instances have mirrored.
func (m *Mirror) Directory() *Directory {
	return &Directory{instance: m.instance, redis: m.redis, sockets: m.sockets, shards: m.shards, log: m.log}
}

// lookupsAtOnce is how many shards one Lookup asks at a time.
const lookupsAtOnce = 16

// Lookup tells about some users (at most MaxLookup), in the order asked, offline ones too. Of users whose
// shard can't be asked the answer is stale: it tells of those with sockets here, and the others are unknown.
// So it is with whom Redis does not know to be online, if it has just lost what it held.
func (d *Directory) Lookup(ctx context.Context, names []string) Answer {
	byShard := map[int][]int{} // shard → places in names
	for i, name := range names {
		shard := d.redis.Keys.ShardOf(name)
		byShard[shard] = append(byShard[shard], i)
	}
	ctx, cancel := context.WithTimeout(ctx, d.redis.Timeout) // for all: a Redis that hangs is waited for but once
	defer cancel()
	var mu sync.Mutex // guards the answer
	answer := Answer{Users: make([]User, len(names))}
	var asking errgroup.Group
	asking.SetLimit(lookupsAtOnce)
	for shard, places := range byShard {
		asking.Go(func() error {
			users, asOf, stale := d.lookupIn(ctx, shard, names, places)
			mu.Lock()
			defer mu.Unlock()
			for i, place := range places {
				answer.Users[place] = users[i]
			}
			answer.Stale = answer.Stale || stale
			if asOf != Never && (answer.AsOf == Never || asOf < answer.AsOf) {
				answer.AsOf = asOf // what has changed since the first was asked is not all in the answer
			}
			return nil
		})
	}
	_ = asking.Wait() // none of them fails
	if answer.AsOf == Never {
		answer.AsOf = thisMoment()
	}
	return answer
}

// lookupIn tells about the users at some places of names, who are in one shard. asOf: Never if it could not
// be asked.
func (d *Directory) lookupIn(ctx context.Context, shard int, names []string, places []int) (users []User, asOf Moment, stale bool) {
	asked := make([]string, len(places))
	for i, place := range places {
		asked[i] = names[place]
	}
	users, leases, now, err := d.redis.lookup(ctx, shard, asked)
	if err != nil {
		d.logObjection(err)
		users = make([]User, len(asked))
		for i, name := range asked {
			users[i] = d.localUser(name)
		}
		return users, Never, true
	}
	s := d.shards[shard]
	forgetful := !s.holdsOwnLease(leases, now) || s.recoveringFromLoss()
	for i, name := range asked {
		if forgetful && users[i].State != Online {
			users[i], stale = d.localUser(name), true
		}
	}
	return users, Moment(now), stale
}

// Count is how many users are present: online or reconnecting. It costs one command for each shard. Users whom a dead instance left
// behind count until they are swept. If Redis can't be asked, it counts the users with sockets here, and is stale; if Redis has just
// lost what it held, it is stale too.
func (d *Directory) Count(ctx context.Context) (present int64, asOf Moment, stale bool) {
	present, now, leases, err := d.redis.count(ctx)
	if err != nil {
		d.logObjection(err)
		_, users := d.sockets.Totals()
		return int64(users), thisMoment(), true
	}
	return present, Moment(now), !d.shards[0].holdsOwnLease(leases, now) || slices.ContainsFunc(d.shards, (*shard).recoveringFromLoss)
}

// Instances lists the instances that have a lease, by id. What they count is as old as the last renewal of their lease, but this one's.
// It fails if Redis can't be asked, or has just lost what it held.
func (d *Directory) Instances(ctx context.Context) ([]Record, error) {
	records, err := d.redis.instances(ctx)
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(records, func(r Record) bool { return r.ID == d.instance })
	if own < 0 {
		return nil, errForgetful
	}
	records[own].Sockets, records[own].Users = d.sockets.Totals()
	return records, nil
}

// localUser is what this instance knows of a user without asking.
func (d *Directory) localUser(name string) User {
	u := User{Name: name, State: Unknown, Instances: []string{}}
	if n := d.sockets.Count(name).Sockets; n > 0 {
		u.State, u.Sockets, u.Instances, u.LastSeen = Online, n, []string{d.instance}, thisMoment()
	}
	return u
}

// logObjection logs what Redis itself objected to, of which a stale answer says nothing. That it is out of reach the mirror logs.
func (d *Directory) logObjection(err error) {
	var reply *rueidis.RedisError
	if errors.As(err, &reply) {
		d.log.Warn("a read is stale", "error", err)
	}
}
