package nbconn

import (
	"errors"
	"os"
	"time"
)

// flush is the flusher: it sends the backlog until nothing is left.
func (c *Conn) flush() {
	for {
		bytes, ok := c.takeBacklog()
		if !ok {
			return
		}
		if len(bytes) == 0 {
			c.owner.Flushed()
			return
		}
		if err := c.sendAll(bytes); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.owner.TooSlow()
			}
			c.Close()
			return
		}
	}
}

// takeBacklog returns what waits. If nothing does, the flusher has ended its work. ok: the connection is not
// closed.
func (c *Conn) takeBacklog() (bytes []byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	bytes, c.backlog = c.backlog, nil
	if len(bytes) == 0 {
		_ = c.Conn.SetWriteDeadline(time.Time{}) // an error means that it is closed
		c.flushing = false
	}
	return bytes, true
}

// sendAll waits until the kernel has taken everything, or until the client's side has taken nothing for
// Limits.Stall. Whether it has taken a little is looked at only when such a time is over. So a client that
// stops reading is noticed after twice that time at most.
func (c *Conn) sendAll(bytes []byte) error {
	for {
		before := c.unsent()
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.group.Limits.Stall))
		n, err := c.Conn.Write(bytes)
		bytes = bytes[n:]
		progress := n > 0 || c.unsent() < before
		if !progress || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}
