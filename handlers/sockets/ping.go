package sockets

import (
	"context"
	"time"

	"github.com/gorilla/websocket"
)

const (
	pingPeriod = 25 * time.Second
	// pongWait is how long after its last sign of life a client is given up. It is three periods, so that an
	// instance, or a machine with all its clients, may hang for half a minute and nobody is cut off.
	pongWait = 75 * time.Second
	never    = 1<<63 - 1 // nanoseconds
	// talking: a client that was heard so recently needs no ping. It is half a period. An idle client, whose
	// last word is its pong, is pinged in every period. One that talks is pinged after one and a half periods
	// at most, which leaves half of pongWait for its answer.
	talking = pingPeriod / 2
)

// Run pings each client once in a period, unless it has just been heard, until the context ends. A client
// that answers nothing is disconnected by its reader, after pongWait. Sockets are pinged in groups, spread
// evenly over the period.
func (s *Server) Run(ctx context.Context) {
	for {
		began := time.Now()
		for i := range pingGroups {
			for _, sock := range s.registry.group(i) {
				sock.ping()
			}
			// by the clock: a late group delays no other
			next := began.Add(time.Duration(i+1) * pingPeriod / pingGroups)
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
	quiet := s.server.now() - time.Duration(s.lastHeard.Load())
	if quiet >= talking && !s.closeSent.Load() {
		s.conn.Ping()
	}
}

// receivePing answers a ping of the client at once, or, if earlier writes are still on their way, after them.
// Then only the last ping is answered, as RFC 6455 allows. A client that sends pings but does not read
// therefore cannot make us buffer.
func (s *socket) receivePing(data string) error {
	s.receiveControl()
	s.pinged.Store(&data)
	if s.allSent() {
		s.sendPong()
	}
	return nil // a write fails only if the connection is closed, which ends the reader
}

// sendPong answers the last ping, if it is not answered yet.
func (s *socket) sendPong() {
	if last := s.pinged.Swap(nil); last != nil {
		_ = s.ws.WriteControl(websocket.PongMessage, []byte(*last), time.Now().Add(controlTime))
	}
}
