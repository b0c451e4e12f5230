package handlers

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"
)

// drain closes all sockets, in batches spread over a time, each told when to come back, and waits until all are gone. What does not
// go by itself is cut when the context ends.
func (s *sockets) drain(ctx context.Context, over time.Duration) {
	var all []*socket
	s.bySession.Range(func(_, value any) bool {
		all = append(all, value.(*socket))
		return true
	})
	const batches = 20
	size := max(1, (len(all)+batches-1)/batches)
	for first := 0; first < len(all); first += size {
		for _, socket := range all[first:min(first+size, len(all))] {
			socket.goAway()
		}
		if first+size < len(all) {
			select {
			case <-time.After(over / batches):
			case <-ctx.Done():
			}
		}
	}
	gone := make(chan struct{})
	go func() { s.open.Wait(); close(gone) }()
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	s.bySession.Range(func(_, value any) bool {
		value.(*socket).cut()
		return true
	})
	<-gone
}

type goaway struct {
	Reconnect int64 `json:"reconnect"` // ms
}

// goAway tells the client when to come back, and closes when that and all before it is written.
func (s *socket) goAway() {
	last := encodeFrame(eventGoaway, mustMarshal(goaway{rand.N(reconnectSpread).Milliseconds()}), "", "")
	s.closeAfter(last, websocket.CloseServiceRestart, "this instance is restarting; come back")
}
