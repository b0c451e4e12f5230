package main

import "syscall"

// endWithUs ends a child even if this process is killed.
func endWithUs(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: signal}
}
