package main

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// TestPush_OneUsersClientsDoNotKeepPushesFromOthers is what one valid token could do: two sockets of mallory
// send events as fast as they can, and each answer goes to twenty more of hers on another instance.
func TestPush_OneUsersClientsDoNotKeepPushesFromOthers(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	var came atomic.Int64 // answers to mallory
	count := func(s *socket) {
		go func() {
			for range s.frames {
				came.Add(1)
			}
		}()
	}
	for range 20 {
		count(connect(t, b, "mallory"))
	}
	for range 2 {
		flooder := connect(t, a, "mallory")
		count(flooder)
		go func() { // until the test ends and with it the socket
			for flooder.conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"events"}`)) == nil {
			}
		}()
	}
	const users, enough = 16, 6000
	for n := range users {
		connect(t, b, fmt.Sprint("bob", n))
	}
	for n := 0; n < users || came.Load() < enough; n++ {
		got := ask(t, a, "POST", fmt.Sprintf("/push/bob%d?wait=written&timeout=5s", n%users), `{"event":"x"}`)
		if wantSockets(t, got, socketCounts(1, 0, 0, 0, 0)); t.Failed() {
			return
		}
	}
	for _, instance := range []*App{a, b} {
		if got := ask(t, instance, "GET", "/readyz", ""); got.Status != 200 {
			t.Errorf("not ready: %s", got.text)
		}
	}
}
