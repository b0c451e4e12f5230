//go:build unix

package handlers

import (
	"errors"
	"syscall"
)

// takeOnce always says that it is done: to wait for more room is not its business.
func (l *line) takeOnce(fd uintptr) bool {
	n, err := syscall.Write(int(fd), l.taking)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Write(int(fd), l.taking)
	}
	switch {
	case err == nil:
		l.took = n
	case !errors.Is(err, syscall.EAGAIN):
		l.failed = err
	}
	return true
}
