//go:build unix

package handlers

import (
	"errors"
	"syscall"
)

// attempt writes once. It always says that it is done: to wait for more room is not its business.
func (k *kernel) attempt(fd uintptr) bool {
	for {
		k.n, k.err = syscall.Write(int(fd), k.bytes)
		switch {
		case errors.Is(k.err, syscall.EINTR):
			continue
		case errors.Is(k.err, syscall.EAGAIN):
			k.n, k.err = 0, nil
		case k.err != nil:
			k.n = 0
		}
		return true
	}
}
