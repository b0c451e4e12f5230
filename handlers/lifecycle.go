package handlers

import (
	"context"
	"net/http"
	"time"
)

// Drain says that this instance is not ready, refuses new sockets, and closes the open ones over a time, each told when to come back.
// It returns when all are gone; those that do not go are cut when the context ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	telling, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	s.options.Mirror.Drain(telling)
	s.sockets.drain(ctx, over)
}

// readiness says why a part keeps this instance from being ready; empty if it does not.
type readiness interface{ NotReadyReason() string }

// Readiness is what keeps an instance from being ready.
type Readiness struct {
	Draining bool
	Deaf     bool // it does not get what others send it
}

// Ready says whether this instance is ready.
func (r Readiness) Ready() bool { return !r.Draining && !r.Deaf }

// Readiness tells of readiness now, as GET /readyz does.
func (s *Server) Readiness() Readiness {
	return Readiness{Draining: s.draining.Load(), Deaf: s.options.Receiver.NotReadyReason() != ""}
}

// EndStreams has streams take no more lines: what was taken is answered, and the last answer says why there are no others.
func (s *Server) EndStreams() { s.leave() }

func errDraining() error {
	return problem(http.StatusServiceUnavailable, "draining", "this instance is shutting down; connect again, and another will answer")
}
