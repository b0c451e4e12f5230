//go:build !linux

package nbconn

// unsent is not known on this system.
func (c *Conn) unsent() int { return 0 }
