package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rollcall/lua/redistest"
)

// clientPool is many clients. Each reconnects by itself whenever its socket closes, as the close code says.
type clientPool struct {
	cluster *cluster
	users   []*user
	clients []*client

	mu sync.Mutex
	// mu guards the following, and what changes in users and clients
	changed chan struct{} // closed and replaced when a client connects, goes, or gets a fence
}

// user is a user with one or two clients.
type user struct {
	name    string
	clients []*client

	online        int           // clients that pushes can reach
	lastConnected time.Time     // when a client last became reachable
	lastGone      time.Time     // when the last reachable client went
	gap           time.Duration // in this run, the longest time without a reachable client
	left          bool          // in this run, a client has left on purpose

	loggedOnline bool      // the last entry of the log says online
	since        time.Time // when the user came online, as last reported
}

// startClientPool connects so many users. Every third of them has two clients.
func startClientPool(c *cluster, people int) *clientPool {
	p := &clientPool{cluster: c, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for i := range people {
		u := &user{name: fmt.Sprintf("%s-%02d", []string{"alice", "bob", "cathy"}[i%3], i)}
		for range 1 + (i+1)%3/2 {
			c := &client{pool: p, user: u, token: token(c.t, u.name, lastsLong), wanted: true,
				frames: map[string]int{}}
			u.clients = append(u.clients, c)
			p.clients = append(p.clients, c)
		}
		p.users = append(p.users, u)
	}
	for _, c := range p.clients {
		done.Go(func() { c.run(ctx) })
	}
	c.t.Cleanup(func() {
		cancel()
		p.mu.Lock()
		for _, c := range p.clients {
			c.closeLocked()
		}
		p.mu.Unlock()
		done.Wait()
	})
	return p
}

// comeBack has a client connect again that vanished or left.
func (p *clientPool) comeBack(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.wanted = true
	p.changedLocked()
}

// holdSome chooses the users whose sockets are all at these nodes, and keeps every second of them from
// reconnecting.
func (p *clientPool) holdSome(nodes []*node) (held []*user, clients []*client) {
	var instances []string
	for _, n := range nodes {
		instances = append(instances, n.instance().Instance)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	others := false
	for _, u := range p.users {
		if slices.ContainsFunc(u.clients, func(c *client) bool {
			return !slices.Contains(instances, c.instance)
		}) {
			continue
		}
		if others = !others; others {
			held, clients = append(held, u), append(clients, u.clients...)
		}
	}
	for _, c := range clients {
		c.held = true
	}
	return held, clients
}

// release lets clients connect again that holdSome has chosen.
func (p *clientPool) release(clients []*client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range clients {
		c.held = false
	}
	p.changedLocked()
}

func (p *clientPool) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// await waits until a condition on the pool holds. It looks again after every change.
func (p *clientPool) await(what string, isSoLocked func() bool) {
	p.cluster.t.Helper()
	for giveUp := time.After(redistest.Patience); ; {
		p.mu.Lock()
		so, changed := isSoLocked(), p.changed
		p.mu.Unlock()
		if so {
			return
		}
		select {
		case <-changed:
		case <-giveUp:
			p.cluster.t.Fatalf("want %s", what)
		}
	}
}

// allConnectedLocked reports whether exactly those clients are connected that are to be.
func (p *clientPool) allConnectedLocked() bool {
	return !slices.ContainsFunc(p.clients, func(c *client) bool {
		return (c.wanted && !c.held) != (c.instance != "")
	})
}

// connected returns where everybody is connected: user → instance → sockets.
func (p *clientPool) connected() (at map[string]map[string]int, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = map[string]map[string]int{}
	for _, c := range p.clients {
		if c.instance == "" {
			continue
		}
		if at[c.user.name] == nil {
			at[c.user.name] = map[string]int{}
		}
		at[c.user.name][c.instance]++
	}
	return at, p.allConnectedLocked()
}

// lastsLong makes a token live longer than any test.
func lastsLong(claims jwt.MapClaims) { claims["exp"] = time.Now().Add(24 * time.Hour).Unix() }
