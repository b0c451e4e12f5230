//go:build unix

package main

import "syscall"

// fileLimit is how many files this process may open; 0: it is not known. Go has raised it to the most that
// the system allows.
func fileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30)) // more than that is "unlimited"
}
