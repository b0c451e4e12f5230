package main

import "syscall"

// childAttributes keep Ctrl-C from the children, who are ended in order, and end them even if this process is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
