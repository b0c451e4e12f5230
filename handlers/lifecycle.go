package handlers

import (
	"context"
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
