package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func TestGate_ClosesOnlyTheConnectionThatHasWaitedLongest(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(listener, 3, func() int { return 0 }, slog.New(slog.DiscardHandler))
	defer g.Close()
	var clients []net.Conn
	for range 5 {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		clients = append(clients, client)
		conn, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		g.visits[conn].isNew = false // as if it had had a request
	}
	if closed := g.closed.Load(); closed != 2 {
		t.Errorf("%d connections were closed to make room for 2", closed)
	}
	for n, client := range clients {
		past := time.Now().Add(-time.Second)
		if n < 2 {
			past = time.Time{}
		}
		_ = client.SetReadDeadline(past) // without one, Read waits for the end
		if _, err := client.Read(make([]byte, 1)); errors.Is(err, io.EOF) != (n < 2) {
			t.Errorf("connection %d: %v", n, err)
		}
	}
}
