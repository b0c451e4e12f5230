//go:build !linux

package main

import "syscall"

// endWithUs does nothing: this system cannot end a child process when the test process is killed.
func endWithUs(syscall.Signal) *syscall.SysProcAttr { return nil }
