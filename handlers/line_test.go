package handlers

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

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

// connectSockets opens sockets without Melody: each with an outbox and a line, and a client that does not read by itself.
func connectSockets(t *testing.T, count int) ([]*socket, []*websocket.Conn) {
	t.Helper()
	upgrader := websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: writeBufferBytes, WriteBufferPool: &bufferStack{}}
	opened := make(chan *socket, 1)
	hub := &sockets{options: Options{Context: t.Context(), Log: slog.New(slog.DiscardHandler)}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &socket{hub: hub}
		s.Socket = presence.Socket{ID: uuid.New(), Conn: s}
		conn, err := upgrader.Upgrade(lineMaker{w, s}, r, nil)
		if err != nil {
			t.Error(err)
		}
		s.conn = conn
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
		if err := s.line.Conn.(*net.TCPConn).SetWriteBuffer(16 << 10); err != nil { // soon full
			t.Fatal(err)
		}
		s.outbox.open([]byte("welcome"), s)
		servers, clients = append(servers, s), append(clients, client)
	}
	return servers, clients
}

func TestAClientThatReadsAgainGetsAllThatWaitedWholeAndInOrder(t *testing.T) {
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
		if err := s.conn.WriteControl(websocket.PingMessage, []byte(frame[:8]), began.Add(time.Minute)); err != nil {
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

func TestAPingIsWrittenBetweenFramesOnly(t *testing.T) {
	t.Parallel()
	servers, clients := connectSockets(t, 1)
	s, client := servers[0], clients[0]
	frame := textFrameOf(strings.Repeat("x", 4000))
	err := s.line.together(func() error {
		for _, part := range [][]byte{frame[:1024], frame[1024:]} { // as gorilla/websocket writes what its buffer has no room for
			if _, err := s.line.Write(part); err != nil {
				return err
			}
			s.ping()
			s.ping() // one is enough
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ping()
	s.sendFrame([]byte("after"))
	pings := 0
	client.SetPingHandler(func(string) error { pings++; return nil })
	for _, want := range []string{"welcome", string(frame[4:]), "after"} {
		if _, got, err := client.ReadMessage(); err != nil || string(got) != want {
			t.Fatalf("got %.20q… of %d bytes, %v, want %.20q", got, len(got), err, want)
		}
	}
	if pings != 2 {
		t.Errorf("%d pings, want one behind the frame and one later", pings)
	}
}

// textFrameOf is a frame of RFC 6455, 5.2, with a text of 126 to 65,535 bytes.
func textFrameOf(text string) []byte {
	return append([]byte{0x81, 126, byte(len(text) >> 8), byte(len(text))}, text...)
}

func TestAClientThatReadsNothingIsCutAndMakesNobodyWait(t *testing.T) {
	t.Parallel()
	servers, clients := connectSockets(t, 2)
	frame := make([]byte, 60_000)
	sent := 0 // one that waited would only end when its connection is cut, with less in the outbox than that may hold
	for servers[0].Send(presence.Message{Frame: frame}) {
		sent++
	}
	if sent < outboxBytes/len(frame) {
		t.Errorf("%d frames were taken", sent)
	}
	if slow := servers[0].hub.slow.Load(); slow != 1 {
		t.Errorf("%d are too slow", slow)
	}
	servers[1].sendFrame([]byte("x"))
	for _, want := range []string{"welcome", "x"} {
		if _, got, err := clients[1].ReadMessage(); err != nil || string(got) != want {
			t.Errorf("the other client got %q, %v", got, err)
		}
	}
	if _, _, err := servers[0].conn.ReadMessage(); err == nil { // until it is cut
		t.Error("its client sent something")
	}
}

func TestAnEmitAllocatesNoMoreForManySocketsThanForFew(t *testing.T) {
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

// slowly reads little at a time, and seldom.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Conn.Read(p[:min(len(p), 1000)])
}

func TestAClientThatReadsSlowlyIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var crew sync.WaitGroup
		var l line
		l.open(there, &crew, func() {}, func() { t.Error("it is called too slow") })
		sent := make([]byte, 5*1000*int(writeTime/time.Second)) // for five times as long
		if _, err := l.Write(sent); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadFull(slowly{here}, make([]byte, len(sent))); err != nil {
			t.Errorf("it was cut after %d bytes: %v", got, err)
		}
		l.Close()
		crew.Wait()
	})
}

func TestAClientThatStopsReadingIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var crew sync.WaitGroup
		var l line
		slow := false
		l.open(there, &crew, func() {}, func() { slow = true })
		if _, err := l.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(here, make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if crew.Wait(); !slow || time.Since(began) > 2*writeTime {
			t.Errorf("slow: %v, after %v", slow, time.Since(began))
		}
	})
}

// stuck is a connection whose writes end only when it is told.
type stuck struct {
	net.Conn
	end chan struct{}
}

func (s stuck) Write(p []byte) (int, error) { <-s.end; return 0, net.ErrClosed }

func TestNothingOfALineOutlivesTheWaitForItsCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, there := net.Pipe()
		conn := stuck{there, make(chan struct{})}
		var crew sync.WaitGroup
		var l line
		l.open(conn, &crew, func() {}, func() {})
		l.closeIn(time.Hour)
		if _, err := l.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.Close()
		l.closeIn(time.Hour)
		waited := make(chan struct{})
		go func() { crew.Wait(); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("a goroutine that sends was not waited for")
		default:
		}
		began := time.Now()
		close(conn.end)
		if <-waited; time.Since(began) != 0 {
			t.Error("a timer was left")
		}
	})
}
