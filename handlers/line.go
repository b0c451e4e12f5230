package handlers

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// lineBytes is the most that a line keeps: what an outbox hands it at a time, and control frames. Who sends pings and reads no
	// answers gets there, and its connection ends.
	lineBytes = 2 * outboxBytes
	// writeTime is for what a line keeps to be taken by the client's side.
	writeTime = 10 * time.Second
)

var errLineFull = errors.New("handlers: the client does not read")

// line is the connection under a WebSocket. Nobody who writes to it waits: what the kernel has no room for is kept, and a goroutine
// that lives no longer than that sends it. So whoever pushes writes to every socket by itself, which costs half of what it takes to
// wake a goroutine for each.
type line struct {
	// static after construction
	net.Conn
	kernel *kernel
	sent   func() // called whenever nothing is kept any more

	mu sync.Mutex
	// mu guards the following
	batch   *[]byte // gathers what is written together; else nil
	kept    []byte
	sending bool // a goroutine sends what is kept
	closed  bool
}

// batches are buffers in which frames are gathered for one write. A line needs one only for that moment.
var batches = sync.Pool{New: func() any { return new([]byte) }}

func newLine(conn net.Conn, sent func()) *line {
	return &line{Conn: conn, kernel: newKernel(conn), sent: sent}
}

// Write implements net.Conn, and never waits. Only whole frames may be written.
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

// together makes one write of all that is written meanwhile, and says whether all of it is sent; if not, l.sent will be called.
func (l *line) together(write func() error) (sent bool) {
	batch := batches.Get().(*[]byte)
	l.mu.Lock()
	l.batch = batch
	l.mu.Unlock()
	err := write()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = nil
	if errWrite := l.writeLocked(*batch); err == nil {
		err = errWrite
	}
	*batch = (*batch)[:0]
	if cap(*batch) <= 2*batchBytes {
		batches.Put(batch)
	}
	return err == nil && !l.sending
}

func (l *line) writeLocked(bytes []byte) error {
	if l.closed {
		return net.ErrClosed
	}
	if !l.sending {
		n, err := l.kernel.take(bytes)
		if err != nil {
			l.closeLocked() // which ends its reader
			return err
		}
		if bytes = bytes[n:]; len(bytes) == 0 {
			return nil
		}
		l.sending = true
		go l.send()
	}
	if len(l.kept)+len(bytes) > lineBytes {
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
		_ = l.Conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := l.Conn.Write(bytes); err != nil {
			l.Close()
			return
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
	l.closed = true
	l.kept = nil
	return l.Conn.Close()
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
	m.socket.line = newLine(conn, m.socket.written)
	return m.socket.line, buffers, nil
}

// kernel is the operating system's end of a connection.
type kernel struct {
	// static after construction
	conn  syscall.RawConn // nil: it can't be asked to take what it has room for
	write func(fd uintptr) bool

	// owned by whoever calls take
	bytes []byte
	n     int
	err   error
}

func newKernel(conn net.Conn) *kernel {
	k := &kernel{}
	if raw, ok := conn.(syscall.Conn); ok {
		k.conn, _ = raw.SyscallConn()
	}
	k.write = k.attempt // once, for a function made anew for each write would be garbage
	return k
}

// take takes as many bytes as there is room for.
func (k *kernel) take(bytes []byte) (n int, err error) {
	if k.conn == nil {
		return 0, nil
	}
	k.bytes = bytes
	err = k.conn.Write(k.write)
	n, k.bytes = k.n, nil
	if err == nil {
		err = k.err
	}
	return n, err
}
