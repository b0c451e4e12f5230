//go:build unix

package main

import "syscall"

// fileLimit is how many files this process may open; 0: nobody knows. Go has raised it to the most that the
// system lets it have.
func fileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30)) // more than that is "unlimited"
}
