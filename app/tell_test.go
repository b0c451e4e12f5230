package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// told is what an instance says of a user.
type told struct {
	User, State     string
	Since, LastSeen *time.Time
	Sockets         int
	Instances       []string
}

// tell reads presence from an instance: users by name. stale: the instance does not vouch for it.
func (n *site) tell(path string) (users map[string]told, stale bool, err error) {
	users = map[string]told{}
	for next := ""; ; {
		got, _, err := n.call("GET", path+next, "")
		var page struct {
			Users []told
			Next  string
			Stale bool
		}
		if err == nil {
			err = json.Unmarshal([]byte(got.text), &page)
		}
		if err != nil || got.Status != http.StatusOK {
			return nil, false, fmt.Errorf("%s answers %d %s %v", n.now().Instance, got.Status, got.text, err)
		}
		stale = stale || page.Stale
		for _, u := range page.Users {
			slices.Sort(u.Instances)
			users[u.User] = u
		}
		if next = "&cursor=" + url.QueryEscape(page.Next); page.Next == "" {
			return users, stale, nil
		}
	}
}

// whatIsWrong compares what every instance says with what the clients know; empty: it is exact. vouched: no instance says that it is
// stale.
func (w *world) whatIsWrong() (wrong string, vouched bool) {
	vouched = true
	truth, complete := w.regulars.truth()
	if !complete {
		return "not everybody is connected", false
	}
	for _, n := range w.serving() {
		users, stale, err := n.tell("/presence?limit=1000")
		if err != nil {
			return err.Error(), false
		}
		vouched = vouched && !stale
		for name, u := range users {
			if u.State != "online" || len(truth[name]) == 0 {
				return fmt.Sprintf("%s is told to be %s", name, u.State), false
			}
		}
		for name, at := range truth {
			sockets := 0
			for _, n := range at {
				sockets += n
			}
			if u := users[name]; u.Sockets != sockets || !slices.Equal(u.Instances, slices.Sorted(maps.Keys(at))) {
				return fmt.Sprintf("%s is told to be on %v with %d sockets, and is on %v", name, u.Instances, u.Sockets, at), false
			}
		}
	}
	if again, _ := w.regulars.truth(); !maps.EqualFunc(truth, again, maps.Equal) {
		return "it has changed meanwhile", false
	}
	return "", vouched
}

// wantExact waits until every instance says what is so, and vouches for it. It says when they first said so.
func (w *world) wantExact() (first time.Time) {
	w.t.Helper()
	eventually(w.t, "presence to be exact", func() (string, bool) {
		wrong, vouched := w.whatIsWrong()
		if wrong == "" && first.IsZero() {
			first = time.Now()
		}
		return wrong, wrong == "" && vouched
	})
	return first
}
