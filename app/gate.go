package main

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rollcall/handlers"
)

const (
	// maxIdle is how many connections may be without a request in hand: their head has not come yet, or they
	// are kept open for the next request. A backend may open thousands at once, and on a busy machine their
	// heads come late. An unfinished head costs 35 kB at most, for five seconds, so all these cost 143 MB at
	// worst.
	maxIdle = 4096
	// headGrace is how long a new connection is left alone, so that an honest client's head can come. One
	// that has had a request needs no grace.
	headGrace = 100 * time.Millisecond
	// strangerGrace is how long a request without an API key may keep a connection that is needed. It is far
	// more than any answer takes that needs no key. Without it, a body that never comes could hold the
	// connection for half a minute.
	strangerGrace = 2 * time.Second
	// acceptRetry is how long the gate waits for a connection to close before it looks again.
	acceptRetry = 10 * time.Millisecond
	// fullWarningEvery is how often the log says that there is no room.
	fullWarningEvery = time.Minute
)

// gate is a listener that accepts a connection only when there is room for it, so that the process never runs
// out of files. There are two kinds of connections. Sockets are limited by the server, which refuses those
// beyond --max-sockets with an answer. All others, from probes, backends and strangers, are the gate's.
//
// If there is no room, the gate closes one of its own: the one that has waited longest without a request in
// hand; else one whose request takes too long and showed no API key; at last an idle one of a backend. So
// whoever fills an instance with connections that say nothing only closes other such connections.
type gate struct {
	// static after construction
	net.Listener
	most    int        // connections and sockets together; 0: no limit
	sockets func() int // how many sockets there are
	log     *slog.Logger
	// capacity 1, so that nobody waits: some connection was closed, or changed its state
	changed chan struct{}
	done    chan struct{} // closed by Close
	once    sync.Once     // of Close

	closed atomic.Int64 // connections that were closed to make room

	mu sync.Mutex
	// mu guards the following
	visits  map[net.Conn]*visit
	idle    list.List // of *visit: without a request in hand, the longest first
	busy    list.List // of *visit: with one
	trusted list.List // of *visit: without one, and the last showed an API key
	warned  time.Time
}

// visit is a connection while it is the gate's. It ends when the connection becomes a socket, or is closed.
type visit struct {
	conn      net.Conn
	isNew     bool         // it has had no request yet
	headLines atomic.Int64 // so many lines of the current head were read
	showedKey atomic.Bool  // its last request showed an API key
	tail      [2]byte      // the last two bytes that were read; owned by the reader

	in      *list.List
	element *list.Element
	since   time.Time // when it came into that list
}

func newGate(listener net.Listener, most int, sockets func() int, log *slog.Logger) *gate {
	return &gate{
		Listener: listener, most: most, sockets: sockets, log: log,
		changed: make(chan struct{}, 1), done: make(chan struct{}), visits: map[net.Conn]*visit{},
	}
}

// Accept implements net.Listener. One goroutine calls it, that of the HTTP server.
func (g *gate) Accept() (net.Conn, error) {
	for !g.makeRoom() {
		select {
		case <-g.changed:
		case <-time.After(acceptRetry):
		case <-g.done:
			return nil, net.ErrClosed
		}
	}
	conn, err := g.Listener.Accept()
	for isOutOfFiles(err) && g.freeFile(err) { // the process needs more files than are kept for it
		conn, err = g.Listener.Accept()
	}
	if err != nil {
		return nil, err
	}
	return g.admit(conn), nil
}

func (g *gate) admit(conn net.Conn) net.Conn {
	v := &visit{isNew: true}
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = newHeadCounter(tcp, v)
	}
	v.conn = conn
	g.mu.Lock()
	defer g.mu.Unlock()
	g.visits[conn] = v
	g.moveLocked(v, &g.idle)
	return conn
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.done) })
	return g.Listener.Close()
}

// makeRoom makes room for one more connection if there is none. It reports whether there is room now.
func (g *gate) makeRoom() bool {
	for {
		g.mu.Lock()
		sockets, others := g.sockets(), len(g.visits)
		full := g.most > 0 && others+sockets >= g.most
		crowded := full || g.idle.Len() >= maxIdle
		if crowded {
			g.warnLocked("there is no room for more connections; "+
				"those that have waited longest without a request are closed",
				"sockets", sockets, "others", others, "limit", g.most)
		}
		g.mu.Unlock()
		if !crowded {
			return true
		}
		if !g.closeOne(full, time.Now()) {
			return false
		}
	}
}

// freeFile closes a connection because the process can open no more files. It reports whether there was one.
func (g *gate) freeFile(err error) bool {
	g.mu.Lock()
	g.warnLocked("this process can open no more files", "error", err)
	g.mu.Unlock()
	return g.closeOne(true, time.Now())
}

// closeOne closes the connection that matters least, and reports whether there was one. full: it may be one
// with a request in hand, or a backend's.
func (g *gate) closeOne(full bool, now time.Time) bool {
	v := g.takeLeast(full, now)
	if v == nil {
		return false
	}
	g.closed.Add(1)
	v.conn.Close() // returns when the file is closed
	return true
}

// takeLeast removes and returns the visit that matters least; nil if none may be closed.
func (g *gate) takeLeast(full bool, now time.Time) *visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := firstOf(&g.idle, func(v *visit) bool { return !v.isNew || now.Sub(v.since) >= headGrace })
	if v == nil && full {
		v = firstOf(&g.busy, func(v *visit) bool {
			return !v.showedKey.Load() && now.Sub(v.since) >= strangerGrace
		})
	}
	if v == nil && full {
		v = firstOf(&g.trusted, func(*visit) bool { return true })
	}
	if v != nil {
		g.removeLocked(v)
		delete(g.visits, v.conn)
	}
	return v
}

func firstOf(visits *list.List, fits func(*visit) bool) *visit {
	for e := visits.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visit); fits(v) {
			return v
		}
	}
	return nil
}

func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// observe is called by the HTTP server when a connection changes its state.
func (g *gate) observe(conn net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visits[conn]
	if v == nil { // it became a socket, or was closed to make room
		return
	}
	switch state {
	case http.StateActive:
		v.isNew = false
		v.headLines.Store(math.MinInt64) // what comes now is a body
		v.showedKey.Store(false)
		g.moveLocked(v, &g.busy)
	case http.StateIdle:
		v.headLines.Store(0)
		if v.showedKey.Load() {
			g.moveLocked(v, &g.trusted)
		} else {
			g.moveLocked(v, &g.idle)
		}
	case http.StateHijacked, http.StateClosed:
		if counter, ok := conn.(*headCounter); ok {
			counter.visit.Store(nil)
		}
		g.removeLocked(v)
		delete(g.visits, conn)
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// moveLocked moves a visit to the end of a list.
func (g *gate) moveLocked(v *visit, to *list.List) {
	g.removeLocked(v)
	v.in, v.since, v.element = to, time.Now(), to.PushBack(v)
}

func (g *gate) removeLocked(v *visit) {
	if v.in != nil {
		v.in.Remove(v.element)
		v.in = nil
	}
}

// context is for requests over a connection. With it they note that they have shown an API key.
func (g *gate) context(ctx context.Context, conn net.Conn) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v := g.visits[conn]; v != nil {
		return handlers.NoteKeys(ctx, &v.showedKey)
	}
	return ctx
}

func (g *gate) warnLocked(message string, args ...any) {
	if now := time.Now(); g.warned.IsZero() || now.Sub(g.warned) >= fullWarningEvery {
		g.warned = now
		g.log.Warn(message, args...)
	}
}
