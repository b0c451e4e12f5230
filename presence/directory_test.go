package presence

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// userIn is a user of a shard.
func (c *cluster) userIn(shard int) string {
	for n := 0; ; n++ {
		if user := fmt.Sprintf("user%d", n); c.redis.Keys.ShardOf(user) == shard {
			return user
		}
	}
}

func TestLookup_IsStaleForTheUsersOfAShardThatCannotBeAskedAndForNoOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 4)
		a, b := c.startInstance("a"), c.startInstance("b")
		here, there, elsewhere := c.userIn(1), c.userIn(2), c.userIn(3)
		lost := here + "!"
		for n := 0; c.redis.Keys.ShardOf(lost) != 1; n++ {
			lost = fmt.Sprintf("lost%d", n)
		}
		a.join(here)
		b.join(lost)
		b.join(there)
		b.join(elsewhere)
		server.Do(c.client, "DEL", c.redis.Keys.Owners(1))
		server.Do(c.client, "SET", c.redis.Keys.Owners(1), "no hash")
		answer := a.Directory().Lookup(t.Context(), []string{there, here, lost, elsewhere})
		var states []State
		for _, u := range answer.Users {
			states = append(states, u.State)
		}
		if want := []State{Online, Online, Unknown, Online}; !slices.Equal(states, want) {
			t.Errorf("read %v, want %v", states, want)
		}
		if !answer.Stale || answer.AsOf == Never {
			t.Errorf("stale %v, as of %v, want a stale answer of a moment", answer.Stale, answer.AsOf)
		}
		if answer := a.Directory().Lookup(t.Context(), []string{there, elsewhere}); answer.Stale {
			t.Error("the answer for users of other shards is stale")
		}
		server.Do(c.client, "DEL", c.redis.Keys.Owners(1)) // so that the mirrors can leave
	})
}

// meeting is a client whose calls wait for each other.
type meeting struct {
	rueidis.Client
	come *sync.WaitGroup
}

func (m meeting) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	if strings.HasPrefix(command.Commands()[0], "EVAL") {
		m.come.Done()
		m.come.Wait()
	}
	return m.Client.Do(ctx, command)
}

func TestLookup_AsksAllShardsAtTheSameTime(t *testing.T) {
	c := newCluster(t, redistest.Start(t), 8)
	a := c.startInstance("a")
	var users []string
	for shard := range 8 {
		users = append(users, c.userIn(shard))
		a.join(users[shard])
	}
	directory := a.Directory()
	directory.Lookup(t.Context(), users) // Redis has the script now, so that each call is one command
	var come sync.WaitGroup
	come.Add(len(users))
	directory.redis.Client = meeting{c.client, &come}
	answered := make(chan Answer, 1)
	go func() { answered <- directory.Lookup(t.Context(), users) }()
	select {
	case answer := <-answered:
		if answer.Stale {
			t.Error("stale")
		}
	case <-time.After(redistest.Patience):
		t.Fatal("one shard is asked after another")
	}
}

// hung is a client that Redis does not answer. It notes the deadline of each call.
type hung struct {
	rueidis.Client
	mu     *sync.Mutex
	untils map[time.Time]bool
}

func (h hung) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	until, _ := ctx.Deadline()
	h.mu.Lock()
	h.untils[until] = true
	h.mu.Unlock()
	<-ctx.Done()
	return h.Client.Do(ctx, command)
}

func TestLookup_WaitsForAHungRedisNoLongerThanOneCallTakes(t *testing.T) {
	const shards = 3 * lookupsAtOnce
	c := newCluster(t, redistest.Start(t), shards)
	c.redis.Timeout = 100 * time.Millisecond
	c.redis.Client = hung{c.client, new(sync.Mutex), map[time.Time]bool{}}
	options := MirrorOptions{Instance: "a", Redis: c.redis, Log: slog.New(slog.DiscardHandler)}
	m, _ := NewMirror(options) // it does not run
	var users []string
	for shard := range shards {
		users = append(users, c.userIn(shard))
	}
	if answer := m.Directory().Lookup(t.Context(), users); !answer.Stale {
		t.Error("the answer is not stale")
	}
	if untils := c.redis.Client.(hung).untils; len(untils) != 1 {
		t.Errorf("the calls have %d deadlines, want one for all", len(untils))
	}
}

func TestDirectory_IgnoresAndCountsWhatItCannotRead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease = time.Minute // nobody sweeps meanwhile
		a := c.startInstance("a")
		a.join("alice")
		server.Do(c.client, "HSET", c.redis.Keys.Owners(0), "poison", "garbage")
		server.Do(c.client, "HSET", c.redis.Keys.Leases(0), "poison.1", "garbage")
		server.Do(c.client, "HSET", c.redis.Keys.Instances(), "poison", "garbage")
		directory := a.Directory()
		page, err := directory.Page(t.Context(), "", 10)
		if err != nil || page.Stale || len(page.Users) != 1 || page.Users[0].Name != "alice" {
			t.Errorf("listed %+v, %v", page, err)
		}
		read := directory.Lookup(t.Context(), []string{"poison", "alice"})
		if read.Stale || read.Users[0].State != Offline || read.Users[1].State != Online {
			t.Errorf("read %+v", read)
		}
		if records, err := directory.Instances(t.Context()); err != nil || len(records) != 1 {
			t.Errorf("instances %+v, %v", records, err)
		}
		if got := a.Stats().Unreadable; got < 6 {
			t.Errorf("%d were counted, want an entry, leases and a record, each time", got)
		}
		for step := (&sweepStep{cursor: "0"}); step != nil; {
			if step, _, err = c.redis.sweep(t.Context(), 0, step); err != nil {
				t.Fatal(err)
			}
		}
		owners, _ := server.Do(c.client, "HKEYS", c.redis.Keys.Owners(0)).AsStrSlice()
		leases, _ := server.Do(c.client, "HKEYS", c.redis.Keys.Leases(0)).AsStrSlice()
		if !slices.Equal(owners, []string{"alice"}) || !slices.Equal(leases, []string{"a.1"}) {
			t.Errorf("a sweep leaves %v and %v", owners, leases)
		}
	})
}

func TestLocalPage_ListsLocalUsersByNameAndHoldsFewOfThem(t *testing.T) {
	options := MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys("x", 4)}}
	m, sockets := NewMirror(options) // it does not run
	var want []string
	for n := range 3000 {
		user := fmt.Sprintf("user%d", n*7919%3000)
		want = append(want, user)
		socket, _ := newSocket(user)
		sockets.Add(socket)
	}
	slices.Sort(want)
	for _, limit := range []int{1, 7, 1000, 3000, 5000} {
		var got []string
		for at := (cursor{local: true}); len(got) <= len(want); {
			page := m.Directory().localPage(at, limit)
			for _, u := range page.Users {
				got = append(got, u.Name)
			}
			if page.Next == "" {
				break
			}
			at, _ = parseCursor(page.Next, 4)
			if limit == 1 && len(got) == 10 {
				got = append(got, want[10:]...) // that is enough
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %d users are listed, want %d in order", limit, len(got), len(want))
		}
	}
	if kept := cap(sockets.firstUsers("", 10)); kept > 20 {
		t.Errorf("it keeps %d names for a page of 10", kept)
	}
}
