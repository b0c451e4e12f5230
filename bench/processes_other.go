//go:build !linux

package main

import "syscall"

// childAttributes only lets this package compile: settings.validate wants Linux.
func childAttributes() *syscall.SysProcAttr { return nil }
