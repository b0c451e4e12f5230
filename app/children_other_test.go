//go:build !linux

package main

import "syscall"

// endWithUs would end a child even if this process is killed, if this system could do that.
func endWithUs(syscall.Signal) *syscall.SysProcAttr { return nil }
