package handlers

import (
	"bufio"
	"cmp"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// lineBytes is the most that a line keeps behind what it has in hand: what an outbox hands it at a time, and some control frames.
	lineBytes = outboxBytes + 64<<10
	// writeTime is how long the client's side may take nothing of what a line keeps. That it takes a little is looked at only when such a
	// time is over, so one that stops reading is noticed after twice that at most.
	writeTime = 10 * time.Second
)

var (
	errLineFull = errors.New("handlers: the client does not read")
	errLineRead = errors.New("handlers: the client sends more than may be read")
	errNoRoom   = errors.New("handlers: other clients need the room of this message")
)

// line is the connection under a WebSocket. Nobody who writes to it waits: what the kernel has no room for is kept, and a goroutine
// that lives no longer than that sends it. So whoever pushes writes to every socket by itself, and no goroutine must be woken for
// each.
type line struct {
	// static after construction
	net.Conn
	kernel syscall.RawConn       // nil: it can't be asked to take what it has room for
	take   func(fd uintptr) bool // the method, once: made anew for each write it would be garbage
	sent   func()                // called whenever nothing is kept any more
	slow   func()                // called when the connection is cut because the client does not read; it must be quick
	crew   *sync.WaitGroup       // of all that runs for this line, or waits to

	mu sync.Mutex
	// mu guards the following
	batch   *[]byte // gathers what is written together; else nil
	pings   bool    // a ping is to follow the batch
	kept    []byte
	sending bool // a goroutine sends what is kept
	closed  bool
	end     chan struct{} // closed when closed is set; nil while nobody waits for that
	closing *time.Timer   // will close the line; nil: none does

	taking []byte // of takeLocked, for take
	took   int
	failed error

	// owned by the reader
	received   int64   // bytes
	arrival    arrival // of the message in hand
	most       int64   // bytes of one message, with all that comes before its end; 0: any number
	unfinished *unfinished
	room       *upload // of the message in hand; nil unless it is large
}

// batches are buffers in which frames are gathered for one write. A line needs one only for that moment.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// open makes it the line of a connection.
func (l *line) open(conn net.Conn, crew *sync.WaitGroup, sent, slow func()) {
	l.Conn, l.crew, l.sent, l.slow, l.take = conn, crew, sent, slow, l.takeOnce
	if kernel, ok := conn.(syscall.Conn); ok {
		l.kernel, _ = kernel.SyscallConn() // an error means that it is closed
	}
}

// Write implements net.Conn, and never waits. Frames may come in parts within together alone.
func (l *line) Write(frame []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batch != nil {
		*l.batch = append(*l.batch, frame...)
		return len(frame), nil
	}
	if err := l.writeLocked(frame); err != nil {
		return 0, err
	}
	return len(frame), nil
}

// pingFrame is a ping of RFC 6455, 5.5.2: final, opcode 9, no data.
var pingFrame = []byte{0x89, 0}

// ping writes a ping between two frames. Who writes frames need not know of it: to have gorilla/websocket make the ping would be 400 bytes
// of garbage for each idle socket.
func (l *line) ping() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batch != nil { // which may end within a frame
		l.pings = true
		return
	}
	_ = l.writeLocked(pingFrame) // an error means that the connection is closed, which its reader deals with
}

// allSent says whether all that was written is sent; if not, l.sent will be called.
func (l *line) allSent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.sending
}

// together makes one write of all that is written meanwhile.
func (l *line) together(write func() error) error {
	batch := batches.Get().(*[]byte)
	l.mu.Lock()
	l.batch = batch
	l.mu.Unlock()
	err := write()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = nil
	if l.pings {
		*batch, l.pings = append(*batch, pingFrame...), false
	}
	err = cmp.Or(err, l.writeLocked(*batch))
	*batch = (*batch)[:0]
	if cap(*batch) <= 2*batchBytes {
		batches.Put(batch)
	}
	return err
}

func (l *line) writeLocked(bytes []byte) error {
	if l.closed {
		return net.ErrClosed
	}
	if !l.sending {
		n, err := l.takeLocked(bytes)
		if err != nil {
			l.closeLocked() // which ends its reader
			return err
		}
		if bytes = bytes[n:]; len(bytes) == 0 {
			return nil
		}
		l.sending = true
		l.crew.Go(l.send)
	}
	if len(l.kept)+len(bytes) > lineBytes {
		l.slow()
		l.closeLocked()
		return errLineFull
	}
	l.kept = append(l.kept, bytes...)
	return nil
}

// send sends what is kept, until nothing is.
func (l *line) send() {
	for {
		l.mu.Lock()
		bytes := l.kept
		l.kept = nil
		switch {
		case l.closed:
			l.mu.Unlock()
			return
		case len(bytes) == 0:
			_ = l.Conn.SetWriteDeadline(time.Time{}) // an error means that it is closed
			l.sending = false
			l.mu.Unlock()
			l.sent()
			return
		}
		l.mu.Unlock()
		if err := l.sendAll(bytes); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				l.slow()
			}
			l.Close()
			return
		}
	}
}

// sendAll waits until all of it is taken, or nothing was for writeTime.
func (l *line) sendAll(bytes []byte) error {
	for {
		before := l.untaken()
		_ = l.Conn.SetWriteDeadline(time.Now().Add(writeTime))
		n, err := l.Conn.Write(bytes)
		bytes = bytes[n:]
		progress := n > 0 || l.untaken() < before
		if !progress || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// Close implements net.Conn. What is kept is lost.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeLocked()
}

func (l *line) closeLocked() error {
	if l.end != nil && !l.closed {
		close(l.end)
	}
	l.closed = true
	l.kept = nil
	if l.closing != nil && l.closing.Stop() {
		l.crew.Done()
	}
	l.closing = nil
	return l.Conn.Close()
}

// closeIn closes the line after a time, unless it is closed or about to be.
func (l *line) closeIn(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.closing != nil {
		return
	}
	l.crew.Add(1)
	l.closing = time.AfterFunc(d, func() {
		defer l.crew.Done()
		l.Close()
	})
}

// ended is closed when the line is.
func (l *line) ended() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		l.end = make(chan struct{})
		if l.closed {
			close(l.end)
		}
	}
	return l.end
}

// SetWriteDeadline implements net.Conn. Who never waits needs no deadline.
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// lineMaker is a response whose connection, when it is taken over, is the socket's line.
type lineMaker struct {
	http.ResponseWriter
	socket *socket
}

// Hijack implements http.Hijacker.
func (m lineMaker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(m.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if counted, ok := conn.(interface{ Plain() net.Conn }); ok {
		conn = counted.Plain() // so that no more than necessary is on the stack of each idle socket
	}
	hub := m.socket.hub
	m.socket.line.open(conn, &hub.open, m.socket.written, m.socket.tooSlow)
	m.socket.line.unfinished, m.socket.line.most = &hub.unfinished, readSlack*int64(hub.options.MaxMessageBytes)+frameSlack
	return &m.socket.line, buffers, nil
}

// takeLocked has the kernel take as many bytes as it has room for.
func (l *line) takeLocked(bytes []byte) (n int, err error) {
	if l.kernel == nil {
		return 0, nil
	}
	l.taking, l.took, l.failed = bytes, 0, nil
	err = l.kernel.Write(l.take)
	l.taking = nil
	return l.took, cmp.Or(err, l.failed)
}
