package nbconn

import (
	"errors"
	"io"
	"os"
	"time"
)

// Read implements net.Conn, within the limits for messages.
func (c *Conn) Read(p []byte) (int, error) {
	if most := c.group.Limits.MessageBytes; most > 0 && c.follower.bytes >= most {
		return 0, ErrTooLarge
	}
	n, err := c.Conn.Read(p)
	return n, c.follow(p[:n], err)
}

// follow notes what was read. The compiler must not put it into Read: what Read has on the stack stays there
// for each idle socket, and with more than 2 KB in all, that stack would have twice the size.
//
//go:noinline
func (c *Conn) follow(p []byte, err error) error {
	if err != nil {
		err = c.readError(err)
	}
	c.received += int64(len(p))
	betweenMessages := !c.follower.inMessage
	ended := c.follower.follow(p)
	if ended {
		c.releaseRoom()
	}
	if len(p) > 0 && (betweenMessages || ended) { // a sign of life, or the beginning of a message
		c.ExtendDeadline()
	}
	c.takeRoom()
	return err
}

// readError says why the connection under this one returned an error.
func (c *Conn) readError(err error) error {
	switch {
	case !c.keepsRoom():
		return ErrNoRoom
	case c.follower.inMessage && errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTooLate
	}
	return err
}

// ExtendDeadline gives the message under way its whole time from now on, or, if there is none, the client the
// time for a sign of life. The reader calls it when it has not read for a while: what the client sent had to
// wait.
func (c *Conn) ExtendDeadline() {
	d := c.group.Limits.Silence
	if c.follower.inMessage {
		d = c.group.Limits.MessageTime
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(d))
}

// SetReadDeadline implements net.Conn. It does not move the deadline of a message that is under way: a
// WebSocket library would do that with each pong between its frames.
func (c *Conn) SetReadDeadline(at time.Time) error {
	if c.follower.inMessage {
		return nil
	}
	return c.Conn.SetReadDeadline(at)
}

// Received is how many bytes were read; for the reader.
func (c *Conn) Received() int64 { return c.received }

// Discard reads and throws away what still comes, for a time and so many bytes at most. Without that, TCP
// resets the connection for what was not read, and the client may never see the last frames that were written
// to it.
func (c *Conn) Discard(d time.Duration, most int64) {
	_ = c.Conn.SetReadDeadline(time.Now().Add(d))
	_, _ = io.CopyN(io.Discard, c.Conn, most)
}

// takeRoom takes room for what has come of a large message, in steps.
func (c *Conn) takeRoom() {
	const step = 16 << 10
	if c.follower.bytes <= smallMessage {
		return
	}
	bytes := (int(c.follower.bytes) + step - 1) / step * step
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if c.upload == nil { // the deadline wakes the reader, which then returns ErrNoRoom
		c.upload = &upload{giveUp: func() { _ = c.Conn.SetReadDeadline(time.Unix(0, 0)) }}
	}
	if bytes > c.upload.asked {
		c.upload.asked = bytes
		c.group.unfinished.grow(c.upload, bytes, c.group.Limits.UnfinishedBytes)
	}
}

// keepsRoom says whether the message under way was not told to go.
func (c *Conn) keepsRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.upload == nil || c.group.unfinished.has(c.upload)
}

// releaseRoom gives back the room of the message that has ended.
func (c *Conn) releaseRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseRoomLocked()
}

func (c *Conn) releaseRoomLocked() {
	if c.upload != nil {
		c.group.unfinished.release(c.upload)
		c.upload = nil
	}
}
