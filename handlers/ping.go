package handlers

import (
	"context"
	"time"
)

const (
	pingPeriod = 25 * time.Second
	// pongWait is after which sign of life a client is given up. It is so much longer that an instance, or a machine with all its clients,
	// may hang for half a minute and nobody is cut off.
	pongWait = 75 * time.Second
	never    = 1<<63 - 1 // nanoseconds
)

// ping asks every client for a sign of life once in a period, until the context ends: without one, Melody ends a connection after its
// pongWait. Melody could ping by itself, but from its writer's goroutine, whose stack would stay grown for each idle socket.
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
