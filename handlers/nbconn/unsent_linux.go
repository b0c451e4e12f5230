package nbconn

import "golang.org/x/sys/unix"

// unsent is how many bytes the kernel still holds for the client. The kernel says that there is room again
// only when a third of its buffer is free, which for a slow client may take longer than Limits.Stall. This
// number tells a client that reads slowly from one that does not read.
func (c *Conn) unsent() (bytes int) {
	if c.raw == nil {
		return 0
	}
	_ = c.raw.Control(func(fd uintptr) { // an error means that it is closed
		bytes, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	return bytes
}
