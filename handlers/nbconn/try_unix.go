//go:build unix

package nbconn

import (
	"errors"
	"syscall"
)

// trySyscall writes what the kernel has room for. It returns true, which tells syscall.RawConn not to wait
// for more.
func (c *Conn) trySyscall(fd uintptr) bool {
	n, err := syscall.Write(int(fd), c.toTry)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Write(int(fd), c.toTry)
	}
	switch {
	case err == nil:
		c.tried = n
	case !errors.Is(err, syscall.EAGAIN):
		c.tryErr = err
	}
	return true
}
