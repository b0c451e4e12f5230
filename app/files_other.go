//go:build !unix

package main

// fileLimit is not known here.
func fileLimit() int { return 0 }
