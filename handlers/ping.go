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
	// talking is how long a client that was heard needs no ping. It is half a period: an idle client, whose last word is its pong, is asked
	// in every period, and one that talks is asked after one and a half at most, so that half of pongWait is left for its answer.
	talking = pingPeriod / 2
)

// ping asks every client that says nothing for a sign of life once in a period, until the context ends: without one, the reader ends a
// connection after pongWait. Melody could ping by itself, but from its writer's goroutine, whose stack would stay grown for each idle socket.
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

// ping asks the client for a sign of life, unless it has just given one, or was told to go.
func (s *socket) ping() {
	quiet := s.hub.now() - time.Duration(s.lastHeard.Load())
	if quiet >= talking && !s.ended.Load() {
		s.conn.Ping()
	}
}

// pong answers a ping of the client, at once or when what was written before is sent: then only the last of them, as RFC 6455 allows. So
// who sends pings and does not read makes us keep nothing.
func (s *socket) pong(data string) error {
	s.control()
	s.pinged.Store(&data)
	if s.allSent() {
		s.pongLast()
	}
	return nil // a write fails only if the connection is closed, which ends the reader
}

func (s *socket) pongLast() {
	if last := s.pinged.Swap(nil); last != nil {
		_ = s.ws.WriteControl(websocket.PongMessage, []byte(*last), time.Now().Add(closeTime))
	}
}
