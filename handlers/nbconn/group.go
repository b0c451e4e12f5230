package nbconn

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Limits hold for each connection of a Group, except where it says otherwise.
type Limits struct {
	Backlog int           // bytes that wait for the client; it is closed beyond that
	Stall   time.Duration // how long the client's side may take nothing of the backlog. See Conn.sendAll

	MessageTime  time.Duration // for a message to arrive, from its first byte on
	MessageBytes int64         // of a message with the heads of its frames and control frames between; 0: any
	Silence      time.Duration // how long a client that has no message under way may send nothing

	UnfinishedBytes int // of all large messages in the group whose end has not come yet
}

// Group is what the connections of one server have in common.
type Group struct {
	// static after construction
	Limits Limits

	sync.WaitGroup // of the goroutines and timers of its connections, and of what the server adds

	unfinished budget
}

// Owner is who writes to a connection.
type Owner interface {
	// Flushed is called whenever the backlog has become empty. It may write.
	Flushed()
	// TooSlow is called when the connection is closed because the client does not read. It must be quick and
	// must not use the connection.
	TooSlow()
}

// Hijacker is an HTTP response. When its connection is taken over, as an upgrade to a WebSocket does, Conn is
// made the connection.
type Hijacker struct {
	http.ResponseWriter
	Conn  *Conn // which is not in use yet
	Group *Group
	Owner Owner
}

// Hijack implements http.Hijacker.
func (h Hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if wrapped, ok := conn.(interface{ Plain() net.Conn }); ok {
		conn = wrapped.Plain() // one call less on the stack of an idle socket's reader
	}
	h.Conn.Open(conn, h.Group, h.Owner)
	return h.Conn, buffers, nil
}

// Open makes c, which is not in use yet, the connection around another.
func (c *Conn) Open(conn net.Conn, group *Group, owner Owner) {
	c.Conn, c.group, c.owner, c.tryOnce = conn, group, owner, c.trySyscall
	if raw, ok := conn.(syscall.Conn); ok {
		c.raw, _ = raw.SyscallConn() // an error means that it is closed
	}
}

// Owner is who writes to the connection.
func (c *Conn) Owner() Owner { return c.owner }
