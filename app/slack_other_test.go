//go:build !linux

package main

const tellSlack = "ROLLCALL_TEST_TELL_SLACK" // never set here

func tellTimerSlack() {}
