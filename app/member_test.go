package main

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"
)

// member is one client.
type member struct {
	regulars *regulars
	person   *person
	token    string

	wanted    bool // is to be connected
	held      bool // but not now
	conn      *websocket.Conn
	sockets   int    // so far
	instance  string // where it is connected; empty: nowhere
	reachable time.Time
	closing   bool // by itself

	// in this step:
	breaks  int            // sockets that closed
	goaways int            // of these, such as were told to come back
	heard   map[string]int // id of a push → how often it came
	order   []heard

	asked, answered int // questions to the gateway; counted up only while the socket is the same
}

// heard is a numbered push that came.
type heard struct {
	id     string
	socket int // of this client, from 1
	From   string
	N      int
}

// run keeps the client connected whenever it is to be.
func (m *member) run(ctx context.Context) {
	for m.waitWanted(ctx) {
		var end error
		conn, instance, err := m.dial(ctx)
		if err == nil {
			end = m.read(conn, instance)
		}
		pause := m.pause(err, end)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// waitWanted waits until the client is to be connected; false: never again.
func (m *member) waitWanted(ctx context.Context) bool {
	for {
		m.regulars.mu.Lock()
		wanted, changed := m.wanted && !m.held, m.regulars.changed
		m.regulars.mu.Unlock()
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

// dial connects to any instance that serves, as a balancer would.
func (m *member) dial(ctx context.Context) (*websocket.Conn, string, error) {
	sites := m.regulars.w.serving()
	if len(sites) == 0 {
		return nil, "", errors.New("no instance serves")
	}
	process := sites[rand.IntN(len(sites))].now()
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second} // it may be paused just now
	conn, _, err := dialer.DialContext(ctx, "ws://"+process.Addr+"/ws?token="+m.token, nil)
	if err != nil {
		return nil, "", err
	}
	m.regulars.mu.Lock()
	defer m.regulars.mu.Unlock()
	if !m.wanted || m.held || ctx.Err() != nil {
		conn.Close()
		return nil, "", errors.New("not wanted any more")
	}
	m.conn, m.closing = conn, false
	m.sockets++
	return conn, process.Instance, nil
}

// read reads until the socket closes, and says why it did.
func (m *member) read(conn *websocket.Conn, instance string) error {
	defer conn.Close()
	for {
		var f frame
		if err := conn.ReadJSON(&f); err != nil {
			m.closed(instance, err)
			return err
		}
		m.take(instance, f)
	}
}

func (m *member) take(instance string, f frame) {
	c := m.regulars
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.closing {
		return
	}
	switch f.Event {
	case "rollcall:welcome":
		var welcome struct{ Reachable bool }
		_ = json.Unmarshal(f.Data, &welcome)
		m.instance = instance
		if welcome.Reachable {
			m.reachableLocked()
		}
		c.changedLocked()
	case "rollcall:reachable":
		m.reachableLocked()
		c.changedLocked()
	case "numbered":
		h := heard{id: f.ID, socket: m.sockets}
		_ = json.Unmarshal(f.Data, &h)
		m.heard[f.ID]++
		m.order = append(m.order, h)
	case "events":
		if f.Ref != "" && string(f.Data) == "3" { // the last of the answers
			m.answered++
			c.changedLocked()
		}
	case "fence":
		m.heard[f.ID]++
		c.changedLocked()
	}
}

func (m *member) reachableLocked() {
	p := m.person
	m.reachable, p.came = time.Now(), time.Now()
	if p.online++; p.online == 1 && !p.gone.IsZero() {
		p.gap = max(p.gap, time.Since(p.gone))
	}
}

// unreachableLocked is called when the client closes, or finds that it was closed.
func (m *member) unreachableLocked() {
	if m.instance != "" && !m.reachable.IsZero() {
		if m.person.online--; m.person.online == 0 {
			m.person.gone = time.Now()
		}
	}
	m.instance, m.reachable = "", time.Time{}
}

func (m *member) closed(instance string, err error) {
	c := m.regulars
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ended := c.w.ended.Load(instance); !ended && !m.closing {
		c.w.t.Errorf("the socket of %s was closed, and its instance %s lives: %v", m.person.name, instance, err)
	}
	m.breaks++
	if websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		m.goaways++
	}
	m.unreachableLocked()
	m.conn = nil
	c.changedLocked()
}

// pause is how long the client waits before it comes back. Told to, it comes back over a second; it tries again soon.
func (m *member) pause(refused, end error) time.Duration {
	var e *websocket.CloseError
	switch {
	case refused != nil:
		return 20 * time.Millisecond
	case errors.As(end, &e) && (e.Code == websocket.CloseServiceRestart || e.Code/100 == 41):
		return rand.N(time.Second)
	}
	return 0
}

func (m *member) closeLocked() {
	m.closing, m.wanted = true, false
	m.unreachableLocked()
	if m.conn != nil {
		m.conn.Close()
	}
}

// dropSocket cuts the client's connection, as a tunnel does. It comes back at once.
func (m *member) dropSocket() {
	m.regulars.mu.Lock()
	defer m.regulars.mu.Unlock()
	if m.conn != nil {
		m.closeLocked()
		m.wanted = true
	}
}

// vanish cuts the client's connection for as long as it is not told to come back.
func (m *member) vanish() {
	m.regulars.mu.Lock()
	defer m.regulars.mu.Unlock()
	m.closeLocked()
}

// leave closes on purpose.
func (m *member) leave() {
	m.regulars.mu.Lock()
	defer m.regulars.mu.Unlock()
	m.closing, m.wanted, m.person.left = true, false, true
	m.unreachableLocked()
	if m.conn != nil {
		_ = m.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience))
	}
}
