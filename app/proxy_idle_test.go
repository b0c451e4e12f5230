package main

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// The time in which sockets are idle is a tenth of a day. The timeouts of the proxies are a tenth of what
// their configurations say, and so is the time after which an instance pings an idle socket.
const (
	fasterDay = 10
	heartbeat = 25 * time.Second / fasterDay
	idlePings = 5
)

func TestProxy_AnIdleSocketOutlivesItsTimeouts(t *testing.T) {
	t.Parallel()
	var instances []string
	for range 3 {
		instances = append(instances, startIdleServer(t))
	}
	said := make(chan error)
	for _, kind := range proxyKinds {
		f := startFront(t, kind, instances, hurry(kind.text(t)))
		awaitReady(t, f.backends)
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+f.public.Addr+"/ws", nil)
		if err != nil {
			t.Fatalf("behind %s: %v", kind.program, err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			_, _, err := conn.ReadMessage() // answers pings meanwhile
			said <- err
		}()
	}
	for range proxyKinds {
		if err := <-said; err != nil {
			t.Errorf("an idle socket was closed: %v", err)
		}
	}
}

var timeouts = regexp.MustCompile(`(timeout (?:client|server|tunnel|http-keep-alive)|` +
	`proxy_(?:read|send)_timeout|keepalive_timeout) +(\d+)s`)

// hurry makes those timeouts of a configuration shorter that count for sockets.
func hurry(config string) string {
	return timeouts.ReplaceAllStringFunc(config, func(setting string) string {
		parts := timeouts.FindStringSubmatch(setting)
		seconds, _ := strconv.Atoi(parts[2])
		return parts[1] + " " + strconv.Itoa(seconds*1000/fasterDay) + "ms"
	})
}

// startIdleServer starts a server that takes the place of an instance. It only pings its sockets, and sends
// something to those that are old enough.
func startIdleServer(t *testing.T) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			return // ready
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		pongs := make(chan struct{}, idlePings)
		conn.SetPongHandler(func(string) error { pongs <- struct{}{}; return nil })
		go func() {
			defer close(pongs)
			_, _, _ = conn.ReadMessage()
		}()
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		for range idlePings {
			<-beat.C
			_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(redistest.Patience))
			if _, alive := <-pongs; !alive {
				return
			}
		}
		_ = conn.WriteMessage(websocket.TextMessage, []byte("still here"))
		<-pongs // until the client is gone
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}
