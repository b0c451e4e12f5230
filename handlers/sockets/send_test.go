package sockets

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/handlers/nbconn"
	"rollcall/presence"
)

// bufferStack is a pool that forgets nothing, as sync.Pool does under the race detector.
type bufferStack struct {
	mu      sync.Mutex
	buffers []any
}

func (s *bufferStack) Get() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buffers) == 0 {
		return nil
	}
	last := s.buffers[len(s.buffers)-1]
	s.buffers = s.buffers[:len(s.buffers)-1]
	return last
}

func (s *bufferStack) Put(buffer any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buffers = append(s.buffers, buffer)
}

// connectSockets opens sockets without Melody: each with an outbox and a line, and a client that does not
// read by itself.
func connectSockets(t *testing.T, count int) ([]*socket, []*websocket.Conn) {
	t.Helper()
	upgrader := websocket.Upgrader{
		ReadBufferSize: 256, WriteBufferSize: writeBufferBytes, WriteBufferPool: &bufferStack{},
	}
	opened := make(chan *socket, 1)
	own := New(Options{Context: t.Context(), Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := newSocket(own, "", nil)
		hijacker := &nbconn.Hijacker{ResponseWriter: w, Conn: &s.conn, Group: &own.conns, Owner: s}
		conn, err := upgrader.Upgrade(hijacker, r, nil)
		if err != nil {
			t.Error(err)
		}
		s.ws = conn
		opened <- s
	}))
	t.Cleanup(server.Close)
	var servers []*socket
	var clients []*websocket.Conn
	dialer := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
		}
		return conn, err
	}}
	for range count {
		client, _, err := dialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := <-opened
		t.Cleanup(func() { client.Close(); s.cut() })
		if err := s.conn.Conn.(*net.TCPConn).SetWriteBuffer(16 << 10); err != nil { // soon full
			t.Fatal(err)
		}
		s.outbox.open([]byte("welcome"), s)
		servers, clients = append(servers, s), append(clients, client)
	}
	return servers, clients
}

func TestSocket_SendsAllThatWaitedWholeAndInOrder(t *testing.T) {
	t.Parallel()
	servers, clients := connectSockets(t, 1)
	s, client := servers[0], clients[0]
	filler := strings.Repeat("x", 4000)
	want := []string{"welcome"}
	began := time.Now()
	for n := range outboxMessages - 100 { // far more than the kernel has room for
		frame := fmt.Sprintf("%d %s", n, filler)
		want = append(want, frame)
		s.sendFrame([]byte(frame))
		err := s.ws.WriteControl(websocket.PingMessage, []byte(frame[:8]), began.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.allSent() {
		t.Fatal("all of it was sent: the client's buffers are too large for this test")
	}
	for n, frame := range want {
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, got, err := client.ReadMessage()
		if err != nil || string(got) != frame {
			t.Fatalf("frame %d: %.20q…, %v", n, got, err)
		}
	}
}

func TestSocket_CutsAClientThatReadsNothingAndMakesNobodyWait(t *testing.T) {
	t.Parallel()
	servers, clients := connectSockets(t, 2)
	frame := make([]byte, 60_000)
	sent := 0 // a Send that waited would end when its connection is cut, long before the outbox is full
	for servers[0].Send(presence.Message{Frame: frame}) {
		sent++
	}
	if sent < outboxBytes/len(frame) {
		t.Errorf("%d frames were taken", sent)
	}
	if slow := servers[0].server.Counts.TooSlow.Load(); slow != 1 {
		t.Errorf("%d are too slow", slow)
	}
	servers[1].sendFrame([]byte("x"))
	for _, want := range []string{"welcome", "x"} {
		if _, got, err := clients[1].ReadMessage(); err != nil || string(got) != want {
			t.Errorf("the other client got %q, %v", got, err)
		}
	}
	if _, _, err := servers[0].ws.ReadMessage(); err == nil { // until it is cut
		t.Error("its client sent something")
	}
}

func TestSocket_AllocatesNothingForAnEmit(t *testing.T) {
	allocations := func(count int) float64 {
		servers, _ := connectSockets(t, count)
		all := presence.NewSockets(presence.Redis{Keys: presence.NewKeys("", 1)}, nil)
		for _, s := range servers {
			all.Add(&s.Socket)
		}
		frame := []byte(strings.Repeat("x", 128))
		return testing.AllocsPerRun(50, func() {
			all.Emit([]*presence.Emit{{To: presence.Everybody, Message: presence.Message{Frame: frame}}})
		})
	}
	few, many := allocations(2), allocations(200)
	if many > few+10 { // the list for a walk may be made anew
		t.Errorf("%.0f allocations for 200 sockets, %.0f for 2", many, few)
	}
}
