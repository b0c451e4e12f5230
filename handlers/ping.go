package handlers

import (
	"context"
	"time"
)

const (
	pingPeriod = 54 * time.Second // Melody's own; it gives a client six seconds to answer
	never      = 1<<63 - 1        // nanoseconds
)

// ping asks every client for a sign of life once in a period, until the context ends: without one, Melody ends a connection after its
// PongWait. Melody could ping by itself, but from its writer's goroutine, whose stack would stay grown for each idle socket.
func (s *sockets) ping(ctx context.Context) {
	for {
		began := time.Now()
		for i := range s.roll.stripes {
			for _, socket := range s.roll.stripes[i].all() {
				socket.ping()
			}
			next := began.Add(time.Duration(i+1) * pingPeriod / rollStripes) // by the clock, so that a late one delays no other
			select {
			case <-time.After(time.Until(next)):
			case <-ctx.Done():
				return
			}
		}
	}
}
