package sockets

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
)

// TestStandBack_LetsOtherWorkRunBetweenFramesOfClients is about one processor, on which frames of many
// clients have come. What else is ready to run, such as a push, must not wait until all of them are handled.
func TestStandBack_LetsOtherWorkRunBetweenFramesOfClients(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const clients, most = 400, 20
	var handled atomic.Int64
	s := startServer(t, 1000)
	s.dispatcher.handlers = map[string]Handler{
		"x": func(context.Context, Request, *Responder) error {
			handled.Add(1)
			return nil
		},
	}
	begin := make(chan struct{})
	for range clients {
		here, there := net.Pipe()
		defer there.Close()
		sock := newSocket(s, "", nil)
		sock.conn.Open(here, &s.conns, sock)
		go func() {
			<-begin
			sock.receive(websocket.TextMessage, []byte(`{"event":"x"}`))
		}()
	}
	runtime.Gosched()
	close(begin)
	longest := int64(0)
	for before := int64(0); before < clients; {
		runtime.Gosched() // the turn of other work
		now := handled.Load()
		longest, before = max(longest, now-before), now
	}
	if longest > most {
		t.Errorf("%d frames were handled before other work had its turn; at most %d may be", longest, most)
	}
}
