package handlers

import (
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// sparseLog limits the rate of log lines that outsiders can cause, such as those about refused tokens:
// sparseBurst lines at once, and one a second in the long run. The next line says how many were left out.
// Each kind of line has a sparseLog of its own, so that none hides another.
type sparseLog struct {
	// static after construction
	log   *slog.Logger
	limit *rate.Limiter

	leftOut atomic.Int64 // lines, since the last one that was written
}

const (
	sparseRate  = 1 // lines a second
	sparseBurst = 20
)

func newSparseLog(log *slog.Logger) *sparseLog {
	return &sparseLog{log: log, limit: rate.NewLimiter(sparseRate, sparseBurst)}
}

func (l *sparseLog) info(message string, args ...any) { l.write(l.log.Info, message, args) }
func (l *sparseLog) warn(message string, args ...any) { l.write(l.log.Warn, message, args) }

func (l *sparseLog) write(log func(string, ...any), message string, args []any) {
	if !l.limit.Allow() {
		l.leftOut.Add(1)
		return
	}
	if leftOut := l.leftOut.Swap(0); leftOut > 0 {
		args = append(args, "leftOut", leftOut)
	}
	log(message, args...)
}
