package handlers

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/presence"
)

// drain closes all sockets, in batches spread over a time, each told when to come back, and waits until all are gone. What does not
// go by itself is cut when the context ends.
func (s *sockets) drain(ctx context.Context, over time.Duration) {
	s.close() // so that no socket comes after the last is gone
	all := s.roll.all()
	const batches = 20
	size := max(1, (len(all)+batches-1)/batches)
	withdrawn := true
	for first := 0; first < len(all); first += size {
		batch := all[first:min(first+size, len(all))]
		withdrawn = withdrawn && s.withdraw(ctx, batch) // if Redis is out of reach, only one batch waits for it
		for _, socket := range batch {
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
	for _, socket := range s.roll.all() {
		socket.cut()
	}
	select {
	case <-gone:
	case <-time.After(cutTime):
		s.options.Log.Warn("stopping while handlers are still at work on messages of clients")
	}
}

// cutTime is for what is at work for a client to notice that its socket is cut and its context has ended.
const cutTime = time.Second

// barrier waits until what was sent to this instance before the call is with its sockets.
type barrier interface {
	CatchUp(ctx context.Context) error
}

// withdraw takes sockets from the map that all instances see, and waits until what was sent to them before is on its way to the
// clients: whatever is answered as taken is written before the client is sent away. Every socket stays open.
func (s *sockets) withdraw(ctx context.Context, batch []*socket) bool {
	ctx, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	known := make([]*presence.Socket, len(batch))
	for i, socket := range batch {
		known[i] = &socket.Socket
	}
	err := s.mirror.Retire(ctx, known)
	if err == nil {
		err = s.options.Receiver.CatchUp(ctx)
	}
	if err != nil {
		s.options.Log.Warn("clients are sent away while pushes may still be on their way to them", "error", err)
	}
	return err == nil
}

// withdrawTime is the longest that a batch of clients is kept for Redis to know that they go.
const withdrawTime = time.Second

type goaway struct {
	Reconnect int64 `json:"reconnect"` // ms
}

// goAway tells the client when to come back, and closes when that and all before it is written.
func (s *socket) goAway() {
	last := encodeFrame(eventGoaway, mustMarshal(goaway{rand.N(reconnectSpread).Milliseconds()}), "", "")
	s.closeAfter(last, websocket.CloseServiceRestart, "this instance is restarting; come back")
}
