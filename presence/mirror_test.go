package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

const patience = time.Minute // after which a test gives up

func TestEveryInstanceReadsWhoIsOnAny(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a, b := c.startInstance("a"), c.startInstance("b")
		first, second := a.join("alice"), b.join("alice")
		u := a.wantUser("alice", Online, 2, "a", "b")
		if u.Since == Never || u.LastSeen < u.Since {
			t.Errorf("since %d, last seen %d", u.Since, u.LastSeen)
		}
		a.Leave(first, false)
		a.settle()
		b.wantUser("alice", Online, 1, "b")
		b.Leave(second, false)
		b.settle()
		dropped := b.wantUser("alice", Reconnecting, 0)
		if dropped.Since != u.Since || dropped.LastSeen < u.LastSeen {
			t.Errorf("reconnecting: %+v", dropped)
		}
		third := b.join("alice")
		if back := b.wantUser("alice", Online, 1, "b"); back.Since != u.Since {
			t.Error("a flicker has reset since")
		}
		b.Leave(third, true)
		b.settle()
		if left := a.wantUser("alice", Offline, 0); left.Since != Never || left.LastSeen < dropped.LastSeen {
			t.Errorf("offline: %+v", left)
		}
		c.wantLog("alice online", "alice offline")
	})
}

func TestUsersOfAnInstanceThatStopsHaveTheGraceToComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a, b := c.startInstance("a"), c.startInstance("b")
		alice := a.join("alice")
		a.join("bob")
		a.Leave(alice, false)
		a.stop()
		b.wantUser("alice", Reconnecting, 0)
		b.wantUser("bob", Reconnecting, 0)
		b.join("alice")
		b.wantUser("alice", Online, 1, "b")
		c.wantLog("alice online", "bob online")
	})
}

func TestACrashedInstanceIsBelievedNoMoreAndSwept(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease, c.redis.Grace = time.Second, time.Second
		b := c.startInstance("b")
		b.join("bob")
		crash(t, c, "a", "alice", "bob")
		b.wantUser("alice", Online, 1, "a")
		b.wantUser("bob", Online, 2, "a", "b")
		states := []State{Online}
		eventually(t, "alice to be offline", func() bool {
			answer, err := b.Directory().Lookup(t.Context(), []string{"alice"})
			if err != nil {
				t.Fatal(err)
			}
			if state := answer.Users[0].State; state != states[len(states)-1] {
				states = append(states, state)
			}
			return states[len(states)-1] == Offline
		})
		if !slices.Equal(states, []State{Online, Reconnecting, Offline}) {
			t.Errorf("alice was %v", states)
		}
		eventually(t, "alice to be swept", func() bool {
			left, _ := server.Do(c.client, "HKEYS", c.redis.Keys.Owners(0)).AsStrSlice()
			return slices.Equal(left, []string{"bob"})
		})
		b.wantUser("bob", Online, 1, "b")
		c.wantLog("bob online", "alice online", "alice offline")
	})
}

func TestAWriteWhoseReplyWasLostIsSettledByItsVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		for name, version := range map[string]int64{"got through": 1, "did not": 0} {
			t.Run(name, func(t *testing.T) {
				m, _ := NewMirror(MirrorOptions{Instance: "a" + fmt.Sprint(version), Redis: c.redis, Log: slog.New(slog.DiscardHandler)})
				if err := m.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := m.shards[0]
				if version == 1 {
					if err := c.redis.mirror(t.Context(), 0, s.token, 0, []change{{user: "alice", sockets: 1}}); err != nil {
						t.Fatal(err)
					}
				}
				s.unsettled = true
				if err := s.step(t.Context(), false); err != nil || s.version != version || s.token.Epoch != 1 {
					t.Errorf("version %d, epoch %d, %v; want version %d, epoch 1", s.version, s.token.Epoch, err, version)
				}
				// and the delayed duplicate has no effect
				s.touch("bob", true, false, time.Now())
				if err := s.step(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				if err := c.redis.mirror(t.Context(), 0, s.token, version, []change{{user: "bob", sockets: 9}}); !errors.Is(err, ErrStale) {
					t.Errorf("the duplicate: %v", err)
				}
			})
		}
	})
}

func TestWithoutRedisAUserIsToBeWrittenOnceHoweverOftenSocketsComeAndGo(t *testing.T) {
	redis := Redis{Keys: NewKeys("x", 2), Lease: time.Second, Grace: time.Hour}
	m, sockets := NewMirror(MirrorOptions{Redis: redis, Log: slog.New(slog.DiscardHandler)}) // which nobody runs
	users := []string{"alice", "bob", "cathy"}
	for range 1000 {
		for _, user := range users {
			socket, _ := newSocket(user)
			sockets.Add(socket)
			sockets.Remove(socket, false)
		}
	}
	if got := m.Stats().Dirty; got != len(users) {
		t.Errorf("%d users are to be written, want %d", got, len(users))
	}
}

func TestAGoodbyeThatCouldNotBeWrittenIsNotForgottenWhenTheUserIsMarkedOnceMore(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	s, left := m.shards[0], time.Now()
	s.touch("alice", false, true, left)
	taken := s.dirty // by a flush
	s.dirty = map[string]mark{}
	m.Again("alice") // somebody still believed that she is here
	s.putBack(taken) // the flush failed
	if got := s.dirty["alice"].change("alice", m.sockets); got != (change{"alice", Left, left, true}) {
		t.Errorf("to be written: %+v", got)
	}
}

func TestAGoodbyeThatComesLateEndsNoGraceThatBeganSince(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	late := mark{left: true, at: time.Now().Add(-backoffMax), known: true}
	if got := late.change("alice", m.sockets); got.sockets != Gone || got.at != late.at {
		t.Errorf("to be written: %+v", got)
	}
}

func TestWhoIsMarkedOnceMoreIsWrittenOnceMoreEvenIfAWriteFailed(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	s := m.shards[0]
	s.again("alice", true)
	s.putBack(map[string]mark{"alice": {kept: 1, at: time.Now()}})
	if got := s.dirty["alice"]; got.kept != 0 || got.at.IsZero() {
		t.Errorf("marked: %+v", got)
	}
}

func TestWhoCouldNotBeReachedIsToldWhenThatIsOverUnlessGoneByThen(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	noTime, cancel := context.WithCancel(t.Context())
	cancel()
	goes, goesBox := newSocket("alice")
	stays, staysBox := newSocket("alice")
	late, lateBox := newSocket("bob")
	m.Join(noTime, goes)
	m.Join(noTime, stays)
	s := m.shards[0]
	mark := s.marked()
	if m.Join(noTime, late) {
		t.Error("reachable, and nothing was ever written")
	}
	m.Leave(goes, false)
	s.settle(mark)
	<-staysBox.reachable
	for name, box := range map[string]*inbox{"who is gone": goesBox, "who came after the write began": lateBox} {
		select {
		case <-box.reachable:
			t.Errorf("%s is told", name)
		default:
		}
	}
	s.settle(s.marked())
	<-lateBox.reachable
	if len(s.untold) > 0 {
		t.Errorf("%d are remembered for ever", len(s.untold))
	}
}

func TestInstancesThatDisagreeOnShardsDoNotStart(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		prefix := strings.TrimSuffix(c.redis.Keys.tags[0], "{0}:")
		c.startInstance("a")
		other := c.redis
		other.Keys = NewKeys(prefix, 4)
		m, _ := NewMirror(MirrorOptions{Instance: "b", Redis: other, Log: slog.New(slog.DiscardHandler)})
		if err := m.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "use 1 shards, this one is set to 4") {
			t.Errorf("opened: %v", err)
		}
	})
}

func TestPagesListEveryPresentUserAndRespectTheLimit(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for _, size := range []struct{ users, shards, limit int }{{0, 1, 10}, {90, 1, 7}, {90, 3, 1}, {3000, 1, 100}, {3000, 4, 1000}, {500, 1, 1}} {
			c := newCluster(t, server, size.shards)
			a := c.startInstance(fmt.Sprintf("a%d", size.users+size.limit))
			var want []string
			for n := range size.users {
				user := fmt.Sprintf("user:%d", n)
				want = append(want, user)
				a.sockets.Add(&Socket{User: user, Conn: &inbox{}})
			}
			a.settle()
			slices.Sort(want)
			got, pages := page(t, a, size.limit)
			if !slices.Equal(got, want) {
				t.Errorf("%+v: listed %d users on %d pages", size, len(got), pages)
			}
			if present, _, stale, err := a.Directory().Count(t.Context()); present != int64(size.users) || stale || err != nil {
				t.Errorf("%+v: counted %d, %v, %v", size, present, stale, err)
			}
		}
	})
}

func TestACursorWithinAStepIsNotTrustedWhenTheHashHasAnotherSize(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a := c.startInstance("a")
		const users = 600
		for n := range users {
			a.sockets.Add(&Socket{User: fmt.Sprintf("user:%d", n), Conn: &inbox{}})
		}
		a.settle()
		next, seen := cursor{next: 1 << 60, after: "z"}.String(), map[string]bool{}
		for next != "" {
			answer, err := a.Directory().Page(t.Context(), next, 50)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range answer.Users {
				seen[u.Name] = true
			}
			next = answer.Next
		}
		if len(seen) != users {
			t.Errorf("%d users are listed", len(seen))
		}
	})
}

func TestPagesThatEndWithinAStepLeaveNobodyOut(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 8)
		a := c.startInstance("a")
		const users = 3000
		for n := range users {
			a.sockets.Add(&Socket{User: fmt.Sprintf("user:%d", n), Conn: &inbox{}})
		}
		a.settle()
		for _, limit := range []int{5, 26, 44, 188} { // such that pages end within steps
			if got, _ := page(t, a, limit); len(got) != users {
				t.Errorf("limit %d: %d users are listed", limit, len(got))
			}
		}
	})
}

func TestOthersWhoUseAnotherNumberOfShardsSayNothingOfALease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: c.redis, Log: slog.New(slog.DiscardHandler)}) // its loops do not run
		if err := m.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.Do(c.client, "SET", c.redis.Keys.AgreedShards(), "4")
		if err := m.shards[0].renew(t.Context()); err == nil || errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "use 4 shards") {
			t.Errorf("renewed: %v", err)
		}
		m.shards[0].leave(t.Context())
		step, err := c.redis.page(t.Context(), 0, 0, 1)
		if err != nil || step.leases.Standing("a.1", step.now, c.redis.Grace) == Live {
			t.Errorf("it has left, and its lease is %v, %v", step.leases, err)
		}
	})
}

// page lists everybody, once each, by name.
func page(t *testing.T, i *instance, limit int) (users []string, pages int) {
	t.Helper()
	for next := ""; ; pages++ {
		answer, err := i.Directory().Page(t.Context(), next, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.Users) > limit || answer.Stale {
			t.Fatalf("a page of %d, limit %d, stale %v", len(answer.Users), limit, answer.Stale)
		}
		for _, u := range answer.Users {
			users = append(users, u.Name)
		}
		if next = answer.Next; next == "" {
			slices.Sort(users)
			return slices.Compact(users), pages + 1
		}
	}
}

func TestAUserPresentThroughoutIsListedHoweverManyComeAndGo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a := c.startInstance("a")
		var stay []string
		for n := range 400 {
			stay = append(stay, fmt.Sprintf("stay%d", n))
			a.sockets.Add(&Socket{User: stay[n], Conn: &inbox{}})
		}
		a.settle()
		seen := map[string]bool{}
		var guests []*Socket
		for next, first := "", true; first || next != ""; first = false {
			answer, err := a.Directory().Page(t.Context(), next, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range answer.Users {
				seen[u.Name] = true
			}
			next = answer.Next
			for n := range 20 { // enough for the table to grow under the listing
				guest := &Socket{User: fmt.Sprintf("guest%d-%d", len(seen), n), Conn: &inbox{}}
				a.sockets.Add(guest)
				guests = append(guests, guest)
			}
			for _, guest := range guests[:len(guests)/3] {
				a.sockets.Remove(guest, true)
			}
			guests = guests[len(guests)/3:]
			a.settle()
		}
		for _, user := range stay {
			if !seen[user] {
				t.Errorf("%s was not listed", user)
			}
		}
	})
}

func TestInstancesAreListedWithTheStateOfTheirLease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		c.redis.Lease = time.Second
		a, b := c.startInstance("a"), c.startInstance("b")
		b.join("bob")
		a.join("alice")
		if records, err := a.Directory().Instances(t.Context()); err != nil || records[0].Sockets != 1 || records[0].Users != 1 {
			t.Errorf("of itself a tells %+v, %v", records, err)
		}
		b.Drain(t.Context())
		eventually(t, "b to be draining with one socket", func() bool {
			records, err := a.Directory().Instances(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(records) == 2 && records[0].ID == "a" && records[0].State == "live" &&
				records[1].State == "draining" && records[1].Sockets == 1 && records[1].Users == 1
		})
		b.stop()
		if records, err := a.Directory().Instances(t.Context()); err != nil || len(records) != 2 || records[1].State != "left" {
			t.Errorf("after b stopped: %v, %v", records, err)
		}
	})
}
