package handlers

import (
	"context"
	"net/http"
	"time"
)

// drainNotice is how long Drain waits at most until Redis shows that this instance takes no more sockets.
const drainNotice = time.Second

// Drain makes this instance not ready, refuses new sockets, and closes the open ones, evenly spread over a
// time. Each client is told when to come back. Drain returns when all sockets are gone. Those that do not go
// are cut when the context ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	telling, cancel := context.WithTimeout(ctx, drainNotice)
	defer cancel()
	s.options.Mirror.Drain(telling)
	s.options.Sockets.Drain(ctx, over)
}

// EndStreams lets streams take no more lines. The lines they have taken are answered, and the last line says
// "draining".
func (s *Server) EndStreams() { s.endStreams() }

// readiness gives the reason, in words, for which a part makes this instance not ready; empty if there is
// none.
type readiness interface{ NotReadyReason() string }

// Readiness says why an instance should get no traffic.
type Readiness struct {
	Draining     bool
	NotReceiving bool // its subscriptions do not work: it does not get what other instances send it
}

// Ready reports whether there is no reason.
func (r Readiness) Ready() bool { return !r.Draining && !r.NotReceiving }

// Readiness is what GET /readyz answers, as values.
func (s *Server) Readiness() Readiness {
	return Readiness{Draining: s.draining.Load(), NotReceiving: s.options.Bus.NotReadyReason() != ""}
}

var errDraining = problem(http.StatusServiceUnavailable, "draining",
	"this instance is shutting down; connect again, and another will answer")
