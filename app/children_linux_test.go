package main

import "syscall"

// endWithUs ends a child process even if the test process is killed.
func endWithUs(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: signal}
}
