package nbconn

import (
	"cmp"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Why a Conn returns an error, besides those of the connection under it.
var (
	ErrBacklogFull = errors.New("nbconn: the client does not read")
	ErrTooLarge    = errors.New("nbconn: a message has too many bytes, with the heads of its frames")
	ErrTooLate     = errors.New("nbconn: a message did not arrive in time")
	ErrNoRoom      = errors.New("nbconn: other clients need the room of this message")
)

// Conn is the connection under a WebSocket. Make one with Open, or let a Hijacker do that. Writes may come
// from several goroutines, and so may Ping and all that closes; reads from one.
type Conn struct {
	// static after construction
	net.Conn
	group   *Group
	owner   Owner
	raw     syscall.RawConn       // nil: the kernel can't be asked to take only what it has room for
	tryOnce func(fd uintptr) bool // the method trySyscall: made anew for each write, it would be garbage

	mu sync.Mutex
	// mu guards the following
	batch    *[]byte // gathers what is written within Batch; else nil
	pingDue  bool    // a ping follows the batch
	backlog  []byte
	flushing bool // the flusher runs
	closed   bool
	done     chan struct{} // closed with the connection; nil while nobody waits for that
	closing  *time.Timer   // will close the connection; nil: none does
	upload   *upload       // room for the message under way; nil unless it is large

	// the argument and the results of trySyscall, guarded by mu
	toTry  []byte
	tried  int
	tryErr error

	// owned by the reader
	received int64 // bytes
	follower follower
}

// batches are buffers in which frames are gathered for one write. A connection needs one only for that
// moment.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// keptBatch is the largest buffer that is put back into batches.
const keptBatch = 128 << 10

// Write implements net.Conn, and never waits. What it gets outside of Batch must be whole frames.
func (c *Conn) Write(frames []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch != nil {
		*c.batch = append(*c.batch, frames...)
		return len(frames), nil
	}
	if err := c.writeLocked(frames); err != nil {
		return 0, err
	}
	return len(frames), nil
}

// pingFrame is a ping of RFC 6455, 5.5.2: final, opcode 9, no data.
var pingFrame = []byte{0x89, 0}

// Ping writes a ping between two frames. It makes no garbage; a ping of gorilla/websocket would make 400
// bytes.
func (c *Conn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch != nil { // the batch may end within a frame at the moment
		c.pingDue = true
		return
	}
	_ = c.writeLocked(pingFrame) // an error means that the connection is closed, which its reader deals with
}

// Flushed says whether the kernel has taken all that was written. If not, Owner.Flushed will be called.
func (c *Conn) Flushed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.flushing
}

// Batch makes one write of all that is written while f runs. A frame may be written in parts there.
func (c *Conn) Batch(f func() error) error {
	batch := batches.Get().(*[]byte)
	c.mu.Lock()
	c.batch = batch
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch = nil
	if c.pingDue {
		*batch, c.pingDue = append(*batch, pingFrame...), false
	}
	err = cmp.Or(err, c.writeLocked(*batch))
	*batch = (*batch)[:0]
	if cap(*batch) <= keptBatch {
		batches.Put(batch)
	}
	return err
}

func (c *Conn) writeLocked(bytes []byte) error {
	if c.closed {
		return net.ErrClosed
	}
	if !c.flushing {
		n, err := c.tryWriteLocked(bytes)
		if err != nil {
			_ = c.closeLocked() // which ends its reader
			return err
		}
		if bytes = bytes[n:]; len(bytes) == 0 {
			return nil
		}
		c.flushing = true
		c.group.Go(c.flush)
	}
	if len(c.backlog)+len(bytes) > c.group.Limits.Backlog {
		c.owner.TooSlow()
		_ = c.closeLocked()
		return ErrBacklogFull
	}
	c.backlog = append(c.backlog, bytes...)
	return nil
}

// tryWriteLocked has the kernel take as many bytes as it has room for.
func (c *Conn) tryWriteLocked(bytes []byte) (n int, err error) {
	if c.raw == nil {
		return 0, nil
	}
	c.toTry, c.tried, c.tryErr = bytes, 0, nil
	err = c.raw.Write(c.tryOnce)
	c.toTry = nil
	return c.tried, cmp.Or(err, c.tryErr)
}

// Close implements net.Conn. The backlog is lost.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeLocked()
}

func (c *Conn) closeLocked() error {
	if c.done != nil && !c.closed {
		close(c.done)
	}
	c.closed = true
	c.backlog = nil
	c.releaseRoomLocked()
	if c.closing != nil && c.closing.Stop() {
		c.group.Done()
	}
	c.closing = nil
	return c.Conn.Close()
}

// CloseAfter closes the connection after a time, unless it is closed or about to be.
func (c *Conn) CloseAfter(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.closing != nil {
		return
	}
	c.group.Add(1)
	c.closing = time.AfterFunc(d, func() {
		defer c.group.Done()
		c.Close()
	})
}

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.closed {
			close(c.done)
		}
	}
	return c.done
}

// SetWriteDeadline implements net.Conn. It does nothing: writes do not wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
