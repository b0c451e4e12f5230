package handlers

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

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
func connectTo(t *testing.T, s *sockets) *websocket.Conn {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		r, err := http.ReadRequest(bufio.NewReader(there))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := s.serve(hijacked{conn: there}, r, ""); err != nil {
			t.Error(err)
		}
	}()
	client, _, err := websocket.NewClient(here, &url.URL{Scheme: "ws", Host: "pipe", Path: "/ws"}, nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); s.open.Wait() })
	return client
}

func newTestSockets(t *testing.T) *sockets {
	t.Helper()
	mirror, _ := presence.NewMirror(presence.MirrorOptions{Instance: "one", Redis: presence.Redis{Keys: presence.NewKeys("", 1)}})
	options := Options{Context: t.Context(), Mirror: mirror, MaxMessageBytes: 1000, Log: slog.New(slog.DiscardHandler)}
	s := newSockets(options, nil, func() bool { return false })
	go s.ping(options.Context)
	return s
}

// limitMessages sets --max-message-bytes.
func (s *sockets) limitMessages(bytes int) {
	s.options.MaxMessageBytes = bytes
	s.open.Limits = s.limits()
	s.handleReads()
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

func TestAClientThatAnswersPingsStaysConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := connectTo(t, newTestSockets(t))
		time.AfterFunc(time.Hour, func() { client.Close() })
		pings, want := countUntilEnd(client, true), int(time.Hour/pingPeriod)
		if pings < want-1 || pings > want+1 { // the first comes within a period, or one and a half
			t.Errorf("%d pings in an hour, want one in %v", pings, pingPeriod)
		}
	})
}

func TestAClientThatAnswersNoPingIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSockets(t)
		client, connected := connectTo(t, s), time.Now()
		countUntilEnd(client, false)
		if after := time.Since(connected); after != pongWait {
			t.Errorf("disconnected after %v", after)
		}
	})
}

func TestAPanicOverAFrameCostsThatFrameAlone(t *testing.T) {
	s := newTestSockets(t)
	s.gateway = nil // so that to answer panics
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
		if err := errors.Join(client.WriteMessage(websocket.TextMessage, []byte(`{"event":"x"}`)), client.WriteMessage(websocket.PingMessage, nil)); err != nil {
			t.Fatal(err)
		}
		<-wait // what is read after the frame is answered
	}
}

func TestARefusedHandshakeEndsTheRequestAndTheSocket(t *testing.T) {
	s, answer := newTestSockets(t), httptest.NewRecorder()
	if _, err := s.serve(answer, httptest.NewRequest(http.MethodGet, "/ws", nil), ""); err != nil {
		t.Error(err)
	}
	if s.open.Wait(); answer.Code != http.StatusBadRequest || len(s.roll.all()) > 0 {
		t.Errorf("answered %d", answer.Code)
	}
}

func TestAClientThatPingsAndDoesNotReadMakesTheServerKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pings = 10_000
		s := newTestSockets(t)
		client := connectTo(t, s)
		for n := range pings {
			if err := client.WriteControl(websocket.PingMessage, []byte(fmt.Sprint(n)), time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if s.roll.all()[0].allSent() {
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
