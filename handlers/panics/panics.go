// Package panics keeps a panic in what one client or backend has caused from ending the instance for all
// others.
package panics

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Error makes an error, with the stack, of what recover returned.
func Error(recovered any) error { return fmt.Errorf("panic: %v\n%s", recovered, debug.Stack()) }

// Catch calls a function and returns its error, or its panic as one.
func Catch(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Error(p)
		}
	}()
	return f()
}

// Log, deferred, makes a panic a line of the log.
func Log(log *slog.Logger, what string, args ...any) {
	if p := recover(); p != nil {
		log.Error(what, append(args, "error", Error(p))...)
	}
}
