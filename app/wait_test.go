package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// socketCounts is what the answer to a push with wait says of sockets.
func socketCounts(written, acked, dropped, gone, unanswered int) string {
	return fmt.Sprintf(`{"written":%d,"acked":%d,"dropped":%d,"gone":%d,"unanswered":%d}`, written, acked,
		dropped, gone, unanswered)
}

func wantSockets(t *testing.T, got answer, want string) {
	t.Helper()
	if got.Status != http.StatusOK || !sameJSON(string(marshal(t, got.Body["sockets"])), want) {
		t.Errorf("got %d %s, want sockets %s", got.Status, got.text, want)
	}
}

func TestPush_WaitWrittenCountsEverySocketOnEveryInstance(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	first := connect(t, apps[0], "alice")
	for _, a := range []*App{apps[0], apps[1], apps[1], apps[2]} {
		connect(t, a, "alice")
	}
	connect(t, apps[1], "")
	for _, a := range apps {
		wantSockets(t, ask(t, a, "POST", "/push/alice?wait=written", `{"event":"x"}`),
			socketCounts(5, 0, 0, 0, 0))
		wantSockets(t, ask(t, a, "POST", "/push/alice?wait=written",
			`{"event":"x","exclude":"`+first.id+`"}`), socketCounts(4, 0, 0, 0, 0))
		wantSockets(t, ask(t, a, "POST", "/push/bob?wait=written", `{"event":"x"}`),
			socketCounts(0, 0, 0, 0, 0))
		wantSockets(t, ask(t, a, "POST", "/emit/all?wait=written", `{"event":"x"}`),
			socketCounts(6, 0, 0, 0, 0))
		wantSockets(t, ask(t, a, "POST", "/emit/authenticated?wait=written", `{"event":"x"}`),
			socketCounts(5, 0, 0, 0, 0))
		many := ask(t, a, "POST", "/push?wait=written", `{"users":["bob","alice"],"event":"x"}`)
		want := `[{"user":"bob","state":"offline","instances":0,"sockets":` + socketCounts(0, 0, 0, 0,
			0) + `},{"user":"alice","state":"online","instances":3,"sockets":` + socketCounts(5, 0, 0, 0,
			0) + `}]`
		if !sameJSON(string(marshal(t, many.Body["results"])), want) {
			t.Errorf("push to many: %s", many.text)
		}
	}
	if got := ask(t, apps[0], "POST", "/push/alice", `{"event":"x"}`); got.Body["sockets"] != nil {
		t.Errorf("without wait: %s", got.text)
	}
}

// acknowledge confirms every push that comes, until the connection ends.
func (s *socket) acknowledge() {
	go func() {
		for f := range s.frames {
			if f.ID != "" {
				_ = s.conn.WriteMessage(websocket.TextMessage,
					[]byte(`{"event":"rollcall:ack","data":{"id":"`+f.ID+`"}}`))
			}
		}
	}()
}

func TestPush_WaitAckedCountsTheClientsThatConfirmed(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	for _, a := range apps {
		connect(t, a, "alice").acknowledge()
	}
	for _, a := range apps {
		wantSockets(t, ask(t, a, "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`),
			socketCounts(3, 3, 0, 0, 0))
		wantSockets(t, ask(t, a, "POST", "/emit/all?wait=acked&timeout=5s", `{"event":"x"}`),
			socketCounts(3, 3, 0, 0, 0))
	}
	connect(t, apps[0], "alice") // does not confirm
	connect(t, apps[1], "alice")
	wantSockets(t, ask(t, apps[2], "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`),
		socketCounts(5, 3, 0, 0, 2))
	wantSockets(t, ask(t, apps[0], "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`),
		socketCounts(5, 3, 0, 0, 2))
}

// stallClient opens a socket that reads nothing, and whose receive buffer is small.
func stallClient(t *testing.T, a *App, user string) {
	t.Helper()
	dialer := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
	conn, response, err := dialer.Dial("ws://"+a.Addr+"/ws?token="+token(t, user), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	t.Cleanup(func() { conn.Close() })
	wantState(t, a, user, "online", 1)
}

func TestSocket_ThatDoesNotReadIsDroppedAndReportedAsDropped(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	near, far := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	bob := connect(t, near, "bob")
	body := `{"event":"x","data":"` + strings.Repeat("x", 60_000) + `"}`
	stallClient(t, near, "alice")
	// The pushes before it wait in vain to be written. On a slow machine Redis may not answer in time for the
	// push at which alice is dropped, which then says only that. She is stalled once more, with more time.
	patience := 10 * time.Millisecond
	redistest.Eventually(t, "alice to be too slow", func() (string, bool) {
		got := ask(t, near, "POST", "/push/alice?wait=written&timeout="+patience.String(), body)
		counts, _ := got.Body["sockets"].(map[string]any)
		if counts["dropped"] == 1.0 {
			return got.text, true
		}
		if state := got.Body["state"]; state == "reconnecting" || state == "offline" {
			patience *= 2
			stallClient(t, near, "alice")
		}
		return got.text, false
	})
	wantState(t, far, "alice", "reconnecting", 0)
	stallClient(t, near, "alice")
	redistest.Eventually(t, "alice to be too slow for what comes from afar", func() (string, bool) {
		ask(t, far, "POST", "/push/alice", body)
		metrics := ask(t, near, "GET", "/metrics", "").text
		return metrics, strings.Contains(metrics, `rollcall_drops_total{reason="socket_too_slow"} 2`)
	})
	push(t, far, "bob", `{"event":"x"}`, "online", 1) // nobody else waits for her
	bob.wantFrame("x", "null")
}

func TestEmit_PassesAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	near, far := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	readers := []*socket{connect(t, near, "bob"), connect(t, near, ""), connect(t, far, "cathy")}
	stallClient(t, near, "alice")
	data := `"` + strings.Repeat("x", 60_000) + `"`
	apps := []*App{near, far}
	for n := 0; !strings.Contains(ask(t, near, "GET", "/metrics", "").text,
		`rollcall_drops_total{reason="socket_too_slow"} 1`); n++ {
		if got := ask(t, apps[n%2], "POST", "/emit/all",
			`{"event":"x","data":`+data+`}`); got.Body["instances"] != 2.0 {
			t.Fatalf("emit: %d %s", got.Status, got.text)
		}
		for _, s := range readers { // while alice's connection is stuck, and when it is given up
			s.wantFrame("x", data)
		}
	}
	wantState(t, far, "alice", "reconnecting", 0)
}

func TestPush_AUserWhoMovesAllTheTimeMissesNoPushAnsweredAsWritten(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	stop := make(chan struct{})
	got := make(chan map[string]int)
	go func() { // moves from instance to instance, each time with a new socket before the old one is closed
		seen := map[string]int{}
		read := func(s *socket) {
			_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""),
				time.Now().Add(redistest.Patience))
			for f := range s.frames {
				seen[string(f.Data)]++
			}
		}
		s := connect(t, apps[0], "alice")
		for n := 1; ; n++ {
			next := connect(t, apps[n%3], "alice")
			read(s)
			s = next
			select {
			case <-stop:
				read(s)
				got <- seen
				return
			default:
			}
		}
	}()
	wantState(t, apps[0], "alice", "online", 1)
	answered := map[string]bool{}
	for n := range 300 {
		a := ask(t, apps[n%3], "POST", "/push/alice?wait=written", fmt.Sprintf(`{"event":"n","data":%d}`, n))
		if counts, _ := a.Body["sockets"].(map[string]any); counts["written"].(float64) > 0 {
			answered[fmt.Sprint(n)] = true
		}
	}
	close(stop)
	seen := <-got
	for n := range answered {
		if seen[n] == 0 {
			t.Errorf("push %s was answered as written, and did not come", n)
		}
	}
	if len(answered) < 150 {
		t.Errorf("only %d of 300 were written", len(answered))
	}
}

func TestKick_ClosesTheUsersSocketsEverywhereAndSaysHowMany(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	kept := connect(t, apps[0], "alice")
	var kicked []*socket
	for _, a := range apps {
		kicked = append(kicked, connect(t, a, "alice"))
	}
	bob := connect(t, apps[2], "bob")
	got := ask(t, apps[1], "DELETE", "/presence/alice?except="+kept.id+"&reason=logged+out", "")
	if got.Status != http.StatusOK || got.Body["closed"] != 3.0 {
		t.Errorf("kick: %d %s", got.Status, got.text)
	}
	for _, s := range kicked {
		s.wantClose(4003)
		if closed := s.ended.(*websocket.CloseError); closed.Text != "logged out" {
			t.Errorf("the reason is %q", closed.Text)
		}
	}
	wantState(t, apps[1], "alice", "online", 1)
	if got := ask(t, apps[1], "DELETE", "/sockets/"+kept.id, ""); got.Body["closed"] != 1.0 {
		t.Errorf("kick a socket: %d %s", got.Status, got.text)
	}
	kept.wantClose(4003)
	wantState(t, apps[0], "alice", "offline", 0) // told not to come back: there is no grace
	for path, closed := range map[string]float64{"/presence/alice": 0, "/sockets/" + uuid.NewString(): 0} {
		if got := ask(t, apps[0], "DELETE", path, ""); got.Body["closed"] != closed {
			t.Errorf("%s: %d %s", path, got.Status, got.text)
		}
	}
	push(t, apps[0], "bob", `{"event":"x"}`, "online", 1)
	bob.wantFrame("x", "null")
}

func TestMetrics_CountWhatBecameOfPushesAndNameNoClient(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	connect(t, apps[0], "alice").acknowledge()
	push(t, apps[0], "alice", `{"event":"x"}`, "online", 1)
	push(t, apps[0], "nobody-of-this-name", `{"event":"x"}`, "offline", 0)
	ask(t, apps[0], "POST", "/push/alice?wait=acked&timeout=5s", `{"event":"x"}`)
	got := ask(t, apps[0], "GET", "/metrics", "")
	for _, line := range []string{
		"rollcall_sockets 1", "rollcall_users 1", `rollcall_pushes_total{outcome="online"} 2`,
		`rollcall_pushes_total{outcome="offline"} 1`,
		"rollcall_routing_seconds_count 2", `rollcall_delivery_seconds_count{wait="acked"} 1`,
		"rollcall_batch_pushes_count 3",
		`rollcall_drops_total{reason="socket_too_slow"} 0`, "rollcall_remirrors_total 0",
		"rollcall_mirror_dirty_users 0",
		"rollcall_lease_trust_seconds ", "rollcall_audit_oldest_difference_seconds 0", "go_goroutines ",
		"rollcall_mirror_errors_total 0",
	} {
		if !strings.Contains(got.text, "\n"+line) {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(got.text, "alice") || strings.Contains(got.text, "nobody-of-this-name") {
		t.Error("a label names a user")
	}
	wantProblem(t, ask(t, apps[0], "GET", "/metrics", "", http.Header{"Authorization": nil}), 401,
		"no_api_key")
}
