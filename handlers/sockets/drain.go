package sockets

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/handlers/strict"
	"rollcall/presence"
)

const (
	// drainBatches is in how many batches sockets are closed.
	drainBatches = 20
	// withdrawTime is how long a batch of clients is kept at most, until Redis shows that they leave.
	withdrawTime = time.Second
	// cutTime is how long Drain waits for handlers after it has cut their sockets. They should notice that,
	// and that their context has ended.
	cutTime = time.Second
	// reconnectSpread is the time over which clients that are told to go together come back.
	reconnectSpread = time.Second
)

// Drain lets no more sockets in and closes all, in batches spread over a time. Each client is told when to
// come back. It returns when all are gone. When the context ends, it cuts those that have not gone by
// themselves.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.registry.close()
	s.sendAllAway(ctx, over)
	gone := make(chan struct{})
	go func() { s.conns.Wait(); close(gone) }()
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	for _, sock := range s.registry.all() {
		sock.cut()
	}
	select {
	case <-gone:
	case <-time.After(cutTime):
		s.options.Log.Warn("stopping while handlers are still at work on messages of clients")
	}
}

// sendAllAway tells all clients to go, batch after batch.
func (s *Server) sendAllAway(ctx context.Context, over time.Duration) {
	all := s.registry.all()
	size := max(1, (len(all)+drainBatches-1)/drainBatches)
	withdrawn := true // so far
	for len(all) > 0 {
		batch := all[:min(size, len(all))]
		all = all[len(batch):]
		withdrawn = withdrawn && s.withdraw(ctx, batch) // if Redis is unreachable, only one batch waits
		for _, sock := range batch {
			sock.goAway()
		}
		if len(all) > 0 {
			select {
			case <-time.After(over / drainBatches):
			case <-ctx.Done():
			}
		}
	}
}

// withdraw takes sockets out of the map that all instances see. Then it waits until what was sent to them
// before is on its way to the clients: whatever was reported as taken is written before its client is sent
// away. Every socket stays open.
func (s *Server) withdraw(ctx context.Context, batch []*socket) bool {
	ctx, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	known := make([]*presence.Socket, len(batch))
	for i, sock := range batch {
		known[i] = &sock.Socket
	}
	err := s.options.Mirror.Retire(ctx, known)
	if err == nil {
		err = s.options.Bus.Barrier(ctx)
	}
	if err != nil {
		s.options.Log.Warn("clients are sent away while pushes may still be on their way to them",
			"error", err)
	}
	return err == nil
}

type goaway struct {
	Reconnect int64 `json:"reconnect"` // ms
}

// goAway tells the client when to come back, and closes when that and all before it is written.
func (s *socket) goAway() {
	last := EncodeFrame(eventGoaway, strict.Marshal(goaway{rand.N(reconnectSpread).Milliseconds()}), "", "")
	s.closeAfter(last, websocket.CloseServiceRestart, "this instance is restarting; come back")
}
