package handlers

import (
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// sparseLog logs one kind of event that others can cause, as often as they like: so many lines at once, and
// one a second in the long run. The next line says how many were left out. Each kind has its own, so that
// none hides another.
type sparseLog struct {
	// static after construction
	log   *slog.Logger
	limit *rate.Limiter

	left atomic.Int64 // lines left out since the last one
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
		l.left.Add(1)
		return
	}
	if left := l.left.Swap(0); left > 0 {
		args = append(args, "leftOut", left)
	}
	log(message, args...)
}
