package main

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// client is a client of a user, which reconnects by itself.
type client struct {
	pool  *clientPool
	user  *user
	token string

	// pool.mu guards the following
	wanted    bool            // the client is to be connected
	held      bool            // holdSome keeps it from connecting for now
	conn      *websocket.Conn // nil: there is none
	sockets   int             // that it has had so far
	instance  string          // where it is connected; empty: nowhere
	reachable time.Time       // since when pushes can reach it; zero: they cannot
	closing   bool            // the client itself has closed its socket

	// in this run:
	breaks  int            // sockets that closed
	goaways int            // those of them that closed after a goaway
	frames  map[string]int // id of a push → how often it arrived
	order   []receivedPush // pushes with a number, as they arrived

	asked, answered int // events sent, and answers; counted only while the socket is the same
}

// receivedPush is a push with a number that a client received.
type receivedPush struct {
	id     string
	socket int // of this client, from 1
	From   string
	N      int
}

// run keeps the client connected as long as it is to be.
func (c *client) run(ctx context.Context) {
	for c.waitWanted(ctx) {
		var end error
		conn, instance, err := c.dial(ctx)
		if err == nil {
			end = c.read(conn, instance)
		}
		pause := c.pause(err, end)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// waitWanted waits until the client is to be connected. It returns false when that will never be again.
func (c *client) waitWanted(ctx context.Context) bool {
	for {
		c.pool.mu.Lock()
		wanted, changed := c.wanted && !c.held, c.pool.changed
		c.pool.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if wanted {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// dial connects to any instance that serves, as a load balancer would.
func (c *client) dial(ctx context.Context) (*websocket.Conn, string, error) {
	nodes := c.pool.cluster.serving()
	if len(nodes) == 0 {
		return nil, "", errors.New("no instance serves")
	}
	process := nodes[rand.IntN(len(nodes))].instance()
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second} // it may be paused just now
	conn, _, err := dialer.DialContext(ctx, "ws://"+process.Addr+"/ws?token="+c.token, nil)
	if err != nil {
		return nil, "", err
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if !c.wanted || c.held || ctx.Err() != nil {
		conn.Close()
		return nil, "", errors.New("not wanted any more")
	}
	c.conn, c.closing = conn, false
	c.sockets++
	return conn, process.Instance, nil
}

// read reads until the socket closes, and returns why.
func (c *client) read(conn *websocket.Conn, instance string) error {
	defer conn.Close()
	for {
		var f frame
		if err := conn.ReadJSON(&f); err != nil {
			c.closed(instance, err)
			return err
		}
		c.receive(instance, f)
	}
}

func (c *client) receive(instance string, f frame) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.closing {
		return
	}
	switch f.Event {
	case "rollcall:welcome":
		var welcome struct{ Reachable bool }
		_ = json.Unmarshal(f.Data, &welcome)
		c.instance = instance
		if welcome.Reachable {
			c.reachableLocked()
		}
		p.changedLocked()
	case "rollcall:reachable":
		c.reachableLocked()
		p.changedLocked()
	case "numbered":
		h := receivedPush{id: f.ID, socket: c.sockets}
		_ = json.Unmarshal(f.Data, &h)
		c.frames[f.ID]++
		c.order = append(c.order, h)
	case "events":
		if f.Ref != "" && string(f.Data) == "3" { // the last of the answers
			c.answered++
			p.changedLocked()
		}
	case "fence":
		c.frames[f.ID]++
		p.changedLocked()
	}
}

func (c *client) reachableLocked() {
	u := c.user
	c.reachable, u.lastConnected = time.Now(), time.Now()
	if u.online++; u.online == 1 && !u.lastGone.IsZero() {
		u.gap = max(u.gap, time.Since(u.lastGone))
	}
}

// unreachableLocked notes that the client has closed its socket, or has found it closed.
func (c *client) unreachableLocked() {
	if c.instance != "" && !c.reachable.IsZero() {
		if c.user.online--; c.user.online == 0 {
			c.user.lastGone = time.Now()
		}
	}
	c.instance, c.reachable = "", time.Time{}
}

func (c *client) closed(instance string, err error) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ended := p.cluster.endedInstances.Load(instance); !ended && !c.closing {
		p.cluster.t.Errorf("the socket of %s was closed, and its instance %s lives: %v", c.user.name,
			instance, err)
	}
	c.breaks++
	if websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		c.goaways++
	}
	c.unreachableLocked()
	c.conn = nil
	p.changedLocked()
}

// pause returns how long the client waits before it connects again. After a goaway it chooses a time within a
// second; after a refusal it tries again soon.
func (c *client) pause(refused, end error) time.Duration {
	var e *websocket.CloseError
	switch {
	case refused != nil:
		return 20 * time.Millisecond
	case errors.As(end, &e) && (e.Code == websocket.CloseServiceRestart || e.Code/100 == 41):
		return rand.N(time.Second)
	}
	return 0
}

func (c *client) closeLocked() {
	c.closing, c.wanted = true, false
	c.unreachableLocked()
	if c.conn != nil {
		c.conn.Close()
	}
}

// dropSocket cuts the client's connection, as a tunnel does. The client reconnects at once.
func (c *client) dropSocket() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.conn != nil {
		c.closeLocked()
		c.wanted = true
	}
}

// vanish cuts the client's connection. The client stays away until comeBack.
func (c *client) vanish() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.closeLocked()
}

// leave closes the socket on purpose, with code 1000.
func (c *client) leave() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.closing, c.wanted, c.user.left = true, false, true
	c.unreachableLocked()
	if c.conn != nil {
		_ = c.conn.WriteControl(websocket.CloseMessage,
			websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
			time.Now().Add(redistest.Patience))
	}
}
