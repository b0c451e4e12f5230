package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// regulars are clients. Each comes back by itself whenever its socket closes, as the close code says.
type regulars struct {
	w       *world
	people  []*person
	members []*member

	mu sync.Mutex
	// mu guards the following, and the state of people and members
	changed chan struct{} // closed and replaced whenever somebody connects, goes, or hears a fence
}

// person is a user with one or two clients.
type person struct {
	name    string
	members []*member

	online int           // members that are reachable
	came   time.Time     // when the last one to come did
	gone   time.Time     // when the last one went
	gap    time.Duration // the longest time with none, in this step
	left   bool          // a client has left on purpose, in this step

	logged bool      // online, as the log has it
	since  time.Time // as last told
}

// startRegulars connects so many people, every third of them twice.
func startRegulars(w *world, people int) *regulars {
	c := &regulars{w: w, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for i := range people {
		p := &person{name: fmt.Sprintf("%s-%02d", []string{"alice", "bob", "cathy"}[i%3], i)}
		for range 1 + (i+1)%3/2 {
			m := &member{regulars: c, person: p, token: token(w.t, p.name, lastsLong), wanted: true, heard: map[string]int{}}
			p.members = append(p.members, m)
			c.members = append(c.members, m)
		}
		c.people = append(c.people, p)
	}
	for _, m := range c.members {
		done.Go(func() { m.run(ctx) })
	}
	w.t.Cleanup(func() {
		cancel()
		c.mu.Lock()
		for _, m := range c.members {
			m.closeLocked()
		}
		c.mu.Unlock()
		done.Wait()
	})
	return c
}

// comeBack lets a client that vanished or left connect again.
func (c *regulars) comeBack(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.wanted = true
	c.changedLocked()
}

// holdSome keeps every other one of those from coming back who have sockets at these sites alone.
func (c *regulars) holdSome(sites []*site) (held []*person, members []*member) {
	var instances []string
	for _, n := range sites {
		instances = append(instances, n.now().Instance)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	others := false
	for _, p := range c.people {
		if slices.ContainsFunc(p.members, func(m *member) bool { return !slices.Contains(instances, m.instance) }) {
			continue
		}
		if others = !others; others {
			held, members = append(held, p), append(members, p.members...)
		}
	}
	for _, m := range members {
		m.held = true
	}
	return held, members
}

// release lets clients that were held connect again.
func (c *regulars) release(members []*member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range members {
		m.held = false
	}
	c.changedLocked()
}

func (c *regulars) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until something is so.
func (c *regulars) await(what string, isSoLocked func() bool) {
	c.w.t.Helper()
	for giveUp := time.After(patience); ; {
		c.mu.Lock()
		so, changed := isSoLocked(), c.changed
		c.mu.Unlock()
		if so {
			return
		}
		select {
		case <-changed:
		case <-giveUp:
			c.w.t.Fatalf("want %s", what)
		}
	}
}

// completeLocked says whether everybody is connected who is to be, and nobody else.
func (c *regulars) completeLocked() bool {
	return !slices.ContainsFunc(c.members, func(m *member) bool { return (m.wanted && !m.held) != (m.instance != "") })
}

// truth is where everybody is connected: user → instance → sockets.
func (c *regulars) truth() (at map[string]map[string]int, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at = map[string]map[string]int{}
	for _, m := range c.members {
		if m.instance == "" {
			continue
		}
		if at[m.person.name] == nil {
			at[m.person.name] = map[string]int{}
		}
		at[m.person.name][m.instance]++
	}
	return at, c.completeLocked()
}

// lastsLong makes a token outlast any test.
func lastsLong(claims jwt.MapClaims) { claims["exp"] = time.Now().Add(24 * time.Hour).Unix() }
