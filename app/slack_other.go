//go:build !linux

package main

// takeTimerSlack does nothing: only Linux lets a thread say how exact its sleeps must be.
func takeTimerSlack() error { return nil }
