package handlers

import (
	"context"
	"time"

	"github.com/gorilla/websocket"
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

// pingFrame is a ping of RFC 6455, 5.5.2: final, opcode 9, no data.
var pingFrame = []byte{0x89, 0}

// ping asks the client for a sign of life, unless it was told to go. The frame goes to the line as it is, between whole frames: to have
// gorilla make it would be 400 bytes of garbage for each idle socket.
func (s *socket) ping() {
	if !s.ended.Load() {
		_, _ = s.line.Write(pingFrame) // an error means that the connection is closed, which disconnect deals with
	}
}

// pong answers a ping of the client, at once or when what was written before is sent: then only the last of them, as RFC 6455 allows. So
// who sends pings and does not read makes us keep nothing.
func (s *socket) pong(data string) error {
	s.pinged.Store(&data)
	if s.allSent() {
		s.pongLast()
	}
	return nil // a write fails only if the connection is closed, which ends the reader
}

func (s *socket) pongLast() {
	if last := s.pinged.Swap(nil); last != nil {
		_ = s.conn.WriteControl(websocket.PongMessage, []byte(*last), time.Now().Add(closeTime))
	}
}
