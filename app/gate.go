package main

import (
	"bytes"
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
	// mostWaiting is how many connections may have no request in hand: their head has not come yet, or they
	// are kept for the next. A backend may open thousands at once, and on a busy machine their heads come
	// late. An unfinished head costs 35 kB at most, for five seconds, so that these cost 143 MB at worst.
	mostWaiting = 4096
	// mostHeadLines is how many lines a head may have. Each costs net/http some 80 bytes, however short it
	// is.
	mostHeadLines = 256
	// headGrace is how long a new connection is left alone, so that an honest client's head can come. What
	// has had a request needs no grace.
	headGrace = 100 * time.Millisecond
	// strangerGrace is how long a request may keep a connection that is needed, unless it showed an API key.
	// It is far more than any answer takes that needs no key; a body that never comes could otherwise hold it
	// for half a minute.
	strangerGrace = 2 * time.Second
	// gateRest is how long the gate waits for a connection to close before it looks again.
	gateRest = 10 * time.Millisecond
	// gateWarning is how often the log says that there is no room.
	gateWarning = time.Minute
)

// gate is a listener that takes a connection only when there is room for it, so that the process never runs
// out of files. There are two kinds: sockets, of which the server refuses those beyond --max-sockets in
// words, and all others, which the gate knows. If there is no room, one of the others is closed: the one that
// has waited longest without a request in hand, or whose request takes too long and showed no API key, or, at
// last, a backend's that waits. So whoever fills an instance with connections that say nothing meets only
// their like.
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
	fresh bool         // it has had no request yet
	lines atomic.Int64 // of the head that is coming
	keyed atomic.Bool  // its last request showed an API key
	tail  [2]byte      // the last that was read; the reader's

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
	for isOutOfFiles(err) && g.makeFile(err) { // the process needs more than is kept for it
		conn, err = g.Listener.Accept()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		one := &visit{conn: conn, fresh: true}
		if tcp, ok := conn.(*net.TCPConn); ok {
			counted := &counted{TCPConn: tcp}
			counted.visit.Store(one)
			conn = counted
		}
		g.visits[conn] = one
		g.moveLocked(one, &g.waiting)
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
		g.mu.Lock()
		sockets, others := g.sockets(), len(g.visits)
		full := g.most > 0 && others+sockets >= g.most
		crowded := full || g.waiting.Len() >= mostWaiting
		if crowded {
			g.warnLocked("there is no room for more connections; those that wait longest without a request are closed",
				"sockets", sockets, "others", others, "limit", g.most)
		}
		g.mu.Unlock()
		if !crowded || !g.closeOne(full, time.Now()) {
			return !crowded
		}
	}
}

// makeFile closes a connection after the process could open no more files. It says whether there was one to
// close.
func (g *gate) makeFile(err error) bool {
	g.mu.Lock()
	g.warnLocked("this process can open no more files", "error", err)
	g.mu.Unlock()
	return g.closeOne(true, time.Now())
}

// closeOne closes the connection that others need most, if there is one.
func (g *gate) closeOne(busyToo bool, now time.Time) bool {
	one := g.takeVictim(busyToo, now)
	if one == nil {
		return false
	}
	g.closed.Add(1)
	one.conn.Close() // returns when the file is closed
	return true
}

func (g *gate) takeVictim(busyToo bool, now time.Time) *visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := firstOf(&g.waiting, func(v *visit) bool { return !v.fresh || now.Sub(v.since) >= headGrace })
	if one == nil && busyToo {
		one = firstOf(&g.busy, func(v *visit) bool { return !v.keyed.Load() && now.Sub(v.since) >= strangerGrace })
	}
	if one == nil && busyToo {
		one = firstOf(&g.known, func(*visit) bool { return true })
	}
	if one != nil {
		g.moveLocked(one, nil)
		delete(g.visits, one.conn)
	}
	return one
}

func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
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
		one.lines.Store(math.MinInt64) // what comes now is a body
		one.keyed.Store(false)
		g.moveLocked(one, &g.busy)
	case http.StateIdle:
		one.lines.Store(0)
		if one.keyed.Load() {
			g.moveLocked(one, &g.known)
		} else {
			g.moveLocked(one, &g.waiting)
		}
	case http.StateHijacked, http.StateClosed:
		if counted, ok := conn.(*counted); ok {
			counted.visit.Store(nil)
		}
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
		g.log.Warn(message, args...)
	}
}

// counted is a connection that counts the lines of heads. A socket's has no visit any more, and costs next to
// nothing.
type counted struct {
	*net.TCPConn
	visit atomic.Pointer[visit]
}

// Plain is the connection without the count, for a socket.
func (c *counted) Plain() net.Conn { return c.TCPConn }

var errHeadLines = errors.New("the head of the request has too many lines")

// Read implements net.Conn.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if visit := c.visit.Load(); visit != nil {
		if visit.lines.Add(visit.headLines(p[:n])) > mostHeadLines {
			return 0, errHeadLines
		}
	}
	return n, err
}

// headLines counts the lines in what was read next, up to the end of the head: a body may follow.
func (v *visit) headLines(read []byte) int64 {
	end := []byte("\n\r\n")
	before := v.tail
	joint := append(before[:], read[:min(len(read), 2)]...) // the end may have come in two reads
	copy(v.tail[:], joint[len(joint)-2:])
	if n := len(read); n > 2 {
		copy(v.tail[:], read[n-2:])
	}
	if bytes.Contains(joint, end) {
		return 1
	}
	head, _, _ := bytes.Cut(read, end)
	return int64(bytes.Count(head, []byte("\n")))
}
