package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestSocket_ThatFloodsIsRefusedAndClosedAndOthersAreNot(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a flood is closed after 10 s only")
	}
	a := startApp(t, "--client-rate=10")
	alice, mallory := connect(t, a, "alice"), connect(t, a, "mallory")
	go func() {
		for n := 0; mallory.conn.WriteMessage(websocket.TextMessage,
			fmt.Appendf(nil, `{"event":"unknown","ref":"%d"}`, n)) == nil; n++ {
		}
	}()
	refused := 0
	for _, f := range mallory.wantClose(4102) {
		if strings.Contains(string(f.Data), "rate_limited") && f.Ref != "" {
			refused++
		}
	}
	if refused == 0 || refused > 10*60 {
		t.Errorf("%d frames were refused in words", refused)
	}
	alice.send(`{"event":"unknown","ref":"1"}`)
	alice.wantError("unknown_event", "1")
	got := ask(t, a, "GET", "/metrics", "").text
	for _, line := range []string{
		// and the one that closed it
		fmt.Sprintf(`rollcall_drops_total{reason="client_rate_limited"} %d`, refused+1),
		`rollcall_drops_total{reason="client_too_many_frames"} 1`,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in the metrics", line)
		}
	}
}
