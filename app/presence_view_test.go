package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"rollcall/lua/redistest"
)

// presenceView is what an instance reports of a user.
type presenceView struct {
	User, State     string
	Since, LastSeen *time.Time
	Sockets         int
	Instances       []string
}

// readPresence reads users from an instance, by name. stale says that the instance does not vouch for them.
func (n *node) readPresence(path string) (users map[string]presenceView, stale bool, err error) {
	users = map[string]presenceView{}
	for next := ""; ; {
		got, _, err := n.call("GET", path+next, "")
		var page struct {
			Users []presenceView
			Next  string
			Stale bool
		}
		if err == nil {
			err = json.Unmarshal([]byte(got.text), &page)
		}
		if err != nil || got.Status != http.StatusOK {
			return nil, false, fmt.Errorf("%s answers %d %s %v", n.instance().Instance, got.Status, got.text,
				err)
		}
		stale = stale || page.Stale
		for _, view := range page.Users {
			slices.Sort(view.Instances)
			users[view.User] = view
		}
		if next = "&cursor=" + url.QueryEscape(page.Next); page.Next == "" {
			return users, stale, nil
		}
	}
}

// difference compares what every instance reports with what the clients know, and returns a difference, or
// nothing. vouched says that no instance called its answer stale.
func (c *cluster) difference() (wrong string, vouched bool) {
	vouched = true
	truth, complete := c.pool.connected()
	if !complete {
		return "not everybody is connected", false
	}
	for _, n := range c.serving() {
		users, stale, err := n.readPresence("/presence?limit=1000")
		if err != nil {
			return err.Error(), false
		}
		vouched = vouched && !stale
		for name, view := range users {
			if view.State != "online" || len(truth[name]) == 0 {
				return fmt.Sprintf("%s is reported as %s", name, view.State), false
			}
		}
		for name, at := range truth {
			sockets := 0
			for _, n := range at {
				sockets += n
			}
			if view := users[name]; view.Sockets != sockets ||
				!slices.Equal(view.Instances, slices.Sorted(maps.Keys(at))) {
				return fmt.Sprintf("%s is reported on %v with %d sockets, and is on %v", name,
					view.Instances, view.Sockets, at), false
			}
		}
	}
	if again, _ := c.pool.connected(); !maps.EqualFunc(truth, again, maps.Equal) {
		return "it has changed meanwhile", false
	}
	return "", vouched
}

// wantExact waits until every instance reports what the clients know, and vouches for it. It returns when
// they first reported it.
func (c *cluster) wantExact() (first time.Time) {
	c.t.Helper()
	redistest.Eventually(c.t, "presence to be exact", func() (string, bool) {
		wrong, vouched := c.difference()
		if wrong == "" && first.IsZero() {
			first = time.Now()
		}
		return wrong, wrong == "" && vouched
	})
	return first
}
