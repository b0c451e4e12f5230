package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// timerSlack is how late the kernel may end a sleep of a thread. Go's monitor thread sleeps 20 µs at a time while goroutines come and
	// go (golang/go#18236), and to wake it so often took more than a tenth of what an instance needs for its pushes; a quarter where
	// eight instances share two cores. Go itself lets the monitor sleep 10 ms once it has found nothing to do for a while.
	timerSlack = 5 * time.Millisecond
	// usualSlack is the kernel's, which threads have unless somebody chose another, as systemd does for TimerSlackNSec=.
	usualSlack = 50 * time.Microsecond

	begunAgain = "ROLLCALL_BEGUN_AGAIN" // set in the environment of a program that takeTimerSlack has begun again
)

// takeTimerSlack gives all threads of this process the slack, unless somebody else chose one. A thread has the slack of the thread that
// started it, and Go's monitor is started before anything of ours: so the program begins again, in the same process, and this returns then.
func takeTimerSlack() error {
	if os.Getenv(begunAgain) != "" {
		return os.Unsetenv(begunAgain)
	}
	runtime.LockOSThread() // the one that begins again
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || time.Duration(slack) != usualSlack {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(program, os.Args, append(os.Environ(), begunAgain+"=1"))
}
