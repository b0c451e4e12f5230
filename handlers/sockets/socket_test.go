package sockets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/fanout"
	"rollcall/presence"
)

// hijacked is the response to a request on one end of a pipe.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Header() http.Header { return http.Header{} }
func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// connectTo connects an anonymous client through a pipe.
func connectTo(t *testing.T, s *Server) *websocket.Conn {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		r, err := http.ReadRequest(bufio.NewReader(there))
		if err != nil {
			t.Error(err)
			return
		}
		if err := s.Serve(hijacked{conn: there}, r, ""); err != nil {
			t.Error(err)
		}
	}()
	dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return here, nil }}
	client, _, err := dialer.Dial("ws://pipe/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); s.conns.Wait() })
	return client
}

// alone is a Mirror and a Bus without other instances.
type alone struct{}

func (alone) Join(context.Context, *presence.Socket) bool      { return true }
func (alone) Leave(*presence.Socket, bool)                     {}
func (alone) Retire(context.Context, []*presence.Socket) error { return nil }
func (alone) Barrier(context.Context) error                    { return nil }
func (alone) Begin([]fanout.Push, time.Time) *fanout.Ticket    { panic("there is nobody to push to") }

// startServer starts a server that knows no events, with messages of at most so many bytes.
func startServer(t *testing.T, maxMessage int) *Server {
	t.Helper()
	s := New(Options{
		Context: t.Context(), Instance: "one", Mirror: alone{}, Bus: alone{},
		MaxMessageBytes: maxMessage, Log: slog.New(slog.DiscardHandler),
	})
	go s.Run(s.options.Context)
	return s
}

// countUntilEnd reads, and counts pings, until the connection ends.
func countUntilEnd(client *websocket.Conn, answer bool) (pings int) {
	pong := client.PingHandler()
	client.SetPingHandler(func(data string) error {
		if pings++; !answer {
			return nil
		}
		return pong(data)
	})
	for {
		if _, _, err := client.ReadMessage(); err != nil {
			return pings
		}
	}
}

func TestServer_KeepsAClientThatAnswersPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := connectTo(t, startServer(t, 1000))
		time.AfterFunc(time.Hour, func() { client.Close() })
		pings, want := countUntilEnd(client, true), int(time.Hour/pingPeriod)
		if pings < want-1 || pings > want+1 { // the first comes within a period, or one and a half
			t.Errorf("%d pings in an hour, want one in %v", pings, pingPeriod)
		}
	})
}

func TestServer_DisconnectsAClientThatAnswersNoPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		client, connected := connectTo(t, s), time.Now()
		countUntilEnd(client, false)
		if after := time.Since(connected); after != pongWait {
			t.Errorf("disconnected after %v", after)
		}
	})
}

func TestSocket_SurvivesAPanicOverAFrame(t *testing.T) {
	s := startServer(t, 1000)
	s.dispatcher.meter = nil // so that an event panics
	client := connectTo(t, s)
	wait := make(chan struct{}, 2)
	client.SetPongHandler(func(string) error { wait <- struct{}{}; return nil })
	go func() {
		for {
			if _, _, err := client.ReadMessage(); err != nil {
				return
			}
		}
	}()
	for range cap(wait) {
		err := client.WriteMessage(websocket.TextMessage, []byte(`{"event":"x"}`))
		if err := errors.Join(err, client.WriteMessage(websocket.PingMessage, nil)); err != nil {
			t.Fatal(err)
		}
		<-wait // what is read after the frame is answered
	}
}

func TestServe_ReturnsWhyAHandshakeIsRefused(t *testing.T) {
	s := startServer(t, 1000)
	err := s.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/ws", nil), "")
	var refused *HandshakeError
	if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("got %v", err)
	}
	if s.conns.Wait(); s.Number() > 0 || len(s.registry.all()) > 0 {
		t.Errorf("%d sockets are counted", s.Number())
	}
}

func TestServe_RefusesMoreSocketsThanMayBe(t *testing.T) {
	s := startServer(t, 1000)
	s.options.MaxSockets = 2
	refused := func() error {
		return s.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/ws", nil), "")
	}
	first := talkTo(t, s)
	if err := s.registry.enter(2, &s.conns.WaitGroup); err != nil { // a handshake under way
		t.Fatal(err)
	}
	if err := refused(); !errors.Is(err, ErrFull) || s.Counts.Full.Load() != 1 {
		t.Errorf("got %v", err)
	}
	s.registry.leave()
	s.conns.Done()
	second := talkTo(t, s)
	first.Close()
	second.Close()
	if s.conns.Wait(); s.Number() != 0 {
		t.Errorf("%d sockets are still counted", s.Number())
	}
	var wrong *HandshakeError
	if err := refused(); !errors.As(err, &wrong) { // there is room, and it is no handshake
		t.Error(err)
	}
}

func TestServe_RefusesSocketsAfterDrain(t *testing.T) {
	s := startServer(t, 1000)
	s.Drain(t.Context(), 0)
	err := s.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/ws", nil), "")
	if !errors.Is(err, ErrDraining) {
		t.Errorf("got %v", err)
	}
}

// early is a response to a client that has sent more than the request, which ends the connection.
type early struct{ hijacked }

func (e early) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	sent := bufio.NewReader(strings.NewReader("a frame"))
	_, err := sent.Peek(1)
	return e.conn, bufio.NewReadWriter(sent, bufio.NewWriter(e.conn)), err
}

func TestServe_ReturnsWhenTheConnectionBreaksWithinTheHandshake(t *testing.T) {
	s := startServer(t, 1000)
	_, there := net.Pipe()
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	for name, value := range map[string]string{
		"Connection": "upgrade", "Upgrade": "websocket",
		"Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(name, value)
	}
	var refused *HandshakeError
	if err := s.Serve(early{hijacked{conn: there}}, r, ""); !errors.As(err, &refused) || refused.Status != 0 {
		t.Errorf("got %v", err)
	}
	if s.conns.Wait(); s.Number() > 0 {
		t.Errorf("%d sockets are counted", s.Number())
	}
}

func TestSocket_KeepsNothingForAClientThatPingsAndDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pings = 10_000
		s := startServer(t, 1000)
		client := connectTo(t, s)
		for n := range pings {
			err := client.WriteControl(websocket.PingMessage, []byte(fmt.Sprint(n)), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if s.registry.all()[0].allSent() {
			t.Fatal("a pipe has no room, and yet all was sent")
		}
		answered, answers := errors.New("answered"), 0
		client.SetPongHandler(func(last string) error {
			if answers++; last == fmt.Sprint(pings-1) {
				return answered
			}
			return nil
		})
		_, _, err := client.ReadMessage() // the welcome
		if err == nil {
			_, _, err = client.ReadMessage()
		}
		if err != answered || answers > 3 { // one may have gone out before the welcome, or with it
			t.Errorf("%d answers, %v", answers, err)
		}
	})
}
