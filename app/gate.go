package main

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rollcall/handlers"
)

const (
	// mostWaiting is how many connections may have no request in hand: their head has not come yet, or they are kept for the next. One costs
	// up to 270 kB if it sends a head of very many lines, and holds back the last.
	mostWaiting = 1024
	// headGrace is how long a new connection is left alone, so that an honest client's head can come. What has had a request needs no grace.
	headGrace = 100 * time.Millisecond
	// strangerGrace is how long a request may keep a connection that is needed, unless it showed an API key. It is far more than any answer
	// takes that needs no key; a body that never comes could otherwise hold it for half a minute.
	strangerGrace = 2 * time.Second
	// gateRest is how long the gate waits for a connection to close before it looks again.
	gateRest = 10 * time.Millisecond
	// gateWarning is how often the log says that there is no room.
	gateWarning = time.Minute
)

// gate is a listener that takes a connection only when there is room for it, so that the process never runs out of files. There are two
// kinds: sockets, of which the server refuses those beyond --max-sockets in words, and all others, which the gate knows. If there is no
// room, one of the others is closed: the one that has waited longest without a request in hand, or whose request takes too long and showed
// no API key, or, at last, a backend's that waits. So whoever fills an instance with connections that say nothing meets only their like.
type gate struct {
	net.Listener
	most    int        // connections and sockets together; 0: as many as come
	sockets func() int // how many there are
	log     *slog.Logger
	changed chan struct{} // capacity 1: some connection was closed, or has gone on
	done    chan struct{} // closed by Close
	closed  atomic.Int64  // connections that were closed for others
	once    sync.Once

	mu sync.Mutex
	// mu guards the following
	visits  map[net.Conn]*visit // without those of sockets
	waiting list.List           // of *visit: without a request in hand, the longest first
	busy    list.List           // with one
	known   list.List           // without one, and the last showed an API key
	warned  time.Time
}

// visit is a connection that is no socket's.
type visit struct {
	conn  net.Conn
	fresh bool        // it has had no request yet
	keyed atomic.Bool // its last request showed an API key

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

// Accept implements net.Listener. It is called by one goroutine, the HTTP server's.
func (g *gate) Accept() (net.Conn, error) {
	for !g.makeRoom() {
		select {
		case <-g.changed:
		case <-time.After(gateRest):
		case <-g.done:
			return nil, net.ErrClosed
		}
	}
	conn, err := g.Listener.Accept()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		one := &visit{conn: conn, fresh: true}
		g.visits[conn] = one
		g.moveLocked(one, &g.waiting)
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE): // the HTTP server tries again
		g.warnLocked("no more files can be opened", "error", err)
	}
	return conn, err
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.done) })
	return g.Listener.Close()
}

// makeRoom says whether there is room for one more connection, and makes it if it can.
func (g *gate) makeRoom() bool {
	for {
		victim, room := g.victim(g.sockets(), time.Now())
		if victim == nil {
			return room
		}
		g.closed.Add(1)
		victim.conn.Close() // returns when the file is closed
	}
}

// victim says whether there is room or, if not, which connection is to be closed for it; nil: none may be just now.
func (g *gate) victim(sockets int, now time.Time) (victim *visit, room bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	full := g.most > 0 && len(g.visits)+sockets >= g.most
	if !full && g.waiting.Len() < mostWaiting {
		return nil, true
	}
	victim = firstOf(&g.waiting, func(v *visit) bool { return !v.fresh || now.Sub(v.since) >= headGrace })
	if victim == nil && full {
		victim = firstOf(&g.busy, func(v *visit) bool { return !v.keyed.Load() && now.Sub(v.since) >= strangerGrace })
	}
	if victim == nil && full {
		victim = firstOf(&g.known, func(*visit) bool { return true })
	}
	if victim != nil {
		g.moveLocked(victim, nil)
		delete(g.visits, victim.conn)
	}
	g.warnLocked("there is no room for more connections; those that wait longest without a request are closed", "sockets", sockets, "others", len(g.visits))
	return victim, false
}

func firstOf(visits *list.List, fits func(*visit) bool) *visit {
	for e := visits.Front(); e != nil; e = e.Next() {
		if one := e.Value.(*visit); fits(one) {
			return one
		}
	}
	return nil
}

// observe is told by the HTTP server of each step of a connection.
func (g *gate) observe(conn net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.visits[conn]
	if one == nil { // it was a socket's, or is closed for others
		return
	}
	switch state {
	case http.StateActive:
		one.fresh = false
		one.keyed.Store(false)
		g.moveLocked(one, &g.busy)
	case http.StateIdle:
		if one.keyed.Load() {
			g.moveLocked(one, &g.known)
		} else {
			g.moveLocked(one, &g.waiting)
		}
	case http.StateHijacked, http.StateClosed:
		g.moveLocked(one, nil)
		delete(g.visits, conn)
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *gate) moveLocked(one *visit, to *list.List) {
	if one.in != nil {
		one.in.Remove(one.element)
	}
	if one.in, one.since = to, time.Now(); to != nil {
		one.element = to.PushBack(one)
	}
}

// context is for requests over a connection: they say with it that they have shown an API key.
func (g *gate) context(ctx context.Context, conn net.Conn) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one := g.visits[conn]; one != nil {
		return handlers.NoteKeys(ctx, &one.keyed)
	}
	return ctx
}

func (g *gate) warnLocked(message string, args ...any) {
	if now := time.Now(); g.warned.IsZero() || now.Sub(g.warned) >= gateWarning {
		g.warned = now
		g.log.Warn(message, append(args, "limit", g.most)...)
	}
}
