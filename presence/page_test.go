package presence

import (
	"fmt"
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestPage_ListsEveryPresentUserAndRespectsTheLimit(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for _, size := range []struct{ users, shards, limit int }{
			{0, 1, 10}, {90, 1, 7}, {90, 3, 1}, {3000, 1, 100}, {3000, 4, 1000}, {500, 1, 1},
		} {
			c := newCluster(t, server, size.shards)
			a := c.startInstance(fmt.Sprintf("a%d", size.users+size.limit))
			want := a.fill(size.users)
			got, pages := list(t, a, "", size.limit)
			if !slices.Equal(got, want) {
				t.Errorf("%+v: listed %d users on %d pages", size, len(got), pages)
			}
			if present, _, stale := a.Directory().Count(t.Context()); present != int64(size.users) || stale {
				t.Errorf("%+v: counted %d, %v", size, present, stale)
			}
		}
	})
}

func TestCursor_WithinAStepIsNotTrustedWhenTheHashHasAnotherSize(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a := c.startInstance("a")
		want := a.fill(600)
		if got, _ := list(t, a, cursor{next: 1 << 60, after: "z"}.String(), 50); !slices.Equal(got, want) {
			t.Errorf("%d users are listed", len(got))
		}
	})
}

func TestPage_ThatEndsWithinAStepLeavesNobodyOut(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 8)
		a := c.startInstance("a")
		want := a.fill(3000)
		for _, limit := range []int{5, 26, 44, 188} { // so that pages end within steps
			if got, _ := list(t, a, "", limit); !slices.Equal(got, want) {
				t.Errorf("limit %d: %d users are listed", limit, len(got))
			}
		}
	})
}

// fill gives so many users a socket, and returns them by name.
func (i *instance) fill(count int) (users []string) {
	i.t.Helper()
	for n := range count {
		users = append(users, fmt.Sprintf("user:%d", n))
		i.sockets.Add(&Socket{User: users[n], Conn: &inbox{}})
	}
	i.waitMirrored()
	slices.Sort(users)
	return users
}

// list lists everybody from a cursor on, once each, by name.
func list(t *testing.T, i *instance, next string, limit int) (users []string, pages int) {
	t.Helper()
	for ; ; pages++ {
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

func TestPage_ListsAUserWhoIsPresentAllTheTimeHoweverManyComeAndGo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		a := c.startInstance("a")
		var stay []string
		for n := range 400 {
			stay = append(stay, fmt.Sprintf("stay%d", n))
			a.sockets.Add(&Socket{User: stay[n], Conn: &inbox{}})
		}
		a.waitMirrored()
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
			a.waitMirrored()
		}
		for _, user := range stay {
			if !seen[user] {
				t.Errorf("%s was not listed", user)
			}
		}
	})
}

func TestCursor_IsReadBackAndNothingElseIsRead(t *testing.T) {
	for _, c := range []cursor{{shard: 3, step: 1 << 63, after: "a:b:🦊"}, {local: true, after: "x"}} {
		if got, err := parseCursor(c.String(), 4); err != nil || got != c {
			t.Errorf("%+v was read back as %+v, %v", c, got, err)
		}
	}
	for _, text := range []string{"x", "!!", cursor{shard: 4}.String(), "eDox", "cjotMTowOg"} {
		if got, err := parseCursor(text, 4); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}
