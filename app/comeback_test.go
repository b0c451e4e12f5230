package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// These tests are about static/rollcall.js in a page that is not Rollcall's own: how it reconnects, when it
// does not, and what it reports.

func TestClient_GivesUpOnATokenThatDoesNotComeAndAsksAgain(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
	cancelled := make(chan bool, 1)
	s.answer("/token", func(w http.ResponseWriter, r *http.Request) {
		hang(w, r)
		cancelled <- true
	}, text(200, token(t, "alice")+"\n"))
	p := b.enter(s, `{ url: "ws://`+a.Addr+`/ws", timeouts: { connect: 2000 },
		token: ({ signal }) => asked++ === 0
		? new Promise(() => {}) // does not care for its signal
		: fetch("/token", { signal }).then((answer) => answer.text()) }`,
		`window.asked = 0; Math.random = () => 0`)
	p.wantSockets(1)
	if got := p.see(`() => rows("log").map((li) => li.dataset.status + " " + li.dataset.reason)
		.join("\n")`); !strings.HasPrefix(got,
		strings.Repeat("connecting \nwaiting token() gave nothing within 2 s\n", 2)+"connecting ") {
		t.Errorf("the client went through\n%s", got)
	}
	<-cancelled // the request is not left hanging
	wantState(t, a, "alice", "online", 1)
}

func TestClient_GivesUpOnAServerThatTakesConnectionsAndNeverAnswers(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody reads
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s, b := openShop(t), startBrowser(t)
	p := b.enter(s, `{ url: "ws://`+listener.Addr().String()+`/ws", timeouts: { connect: 200 } }`, ``)
	p.await("more than one attempt", `() => rows("log").filter((li) => li.dataset.status === "waiting" &&
		li.dataset.reason === "the server did not answer within 0.2 s").length > 1`)
}

func TestClient_GivesUpAskingWhyItWasRefused(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t), startBrowser(t)
	instance := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: a.Addr})
	var asked atomic.Bool
	s.answer("/ws", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !websocket.IsWebSocketUpgrade(r): // it asks why
			hang(w, r)
			asked.Store(true)
		case !asked.Load():
			text(http.StatusServiceUnavailable, "")(w, r)
		default:
			instance.ServeHTTP(w, r)
		}
	})
	p := b.enter(s, `{ timeouts: { connect: 2000 } }`, ``)
	p.wantSockets(1)
	p.wantStep("waiting", "the server gave no answer")
}

func TestClient_TakesNoErrorPageForAToken(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
	p := b.enter(s, `{ url: "ws://`+a.Addr+`/ws", token: () => given.length > 1 ? given.shift() : given[0] }`,
		`Math.random = () => 0;
		window.given = ["<!doctype html><h1>Error 500</h1>", "Not Found", "", null, { token: 1 }, undefined,
			"`+token(t, "alice")+`"]`)
	p.wantSockets(1)
	want := []string{`"<!doctype html><h1>E"`, `"Not Found"`, `""`, `"null"`, `"[object Object]"`,
		`"undefined"`}
	got := p.see(`() => rows("log").filter((li) => li.dataset.status === "waiting")
		.map((li) => li.dataset.reason).join("\n")`)
	if want := "token() gave no token, but " + strings.Join(want,
		"\ntoken() gave no token, but "); !strings.HasPrefix(got, want) {
		t.Errorf("the client said\n%s\nwant\n%s", got, want)
	}
	wantState(t, a, "alice", "online", 1)
}

func TestClient_AsksForAnotherTokenIfTheServerRefusesOne(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
	old := token(t, "alice", func(claims jwt.MapClaims) { claims["exp"] = time.Now().Add(-time.Hour).Unix() })
	s.answer("/token", text(200, old), text(200, old), text(200, token(t, "alice")))
	p := b.enter(s, `{ url: "ws://`+a.Addr+`/ws",
		token: () => fetch("/token").then((answer) => answer.text()) }`,
		`Math.random = () => 0`)
	p.wantSockets(1)
	got := p.see(`() => rows("log").filter((li) => li.dataset.status === "waiting")
		.map((li) => li.dataset.delay).join(" ")`)
	if !strings.HasPrefix(got, "1000 2000") {
		t.Errorf("the client waited for %s ms, want 1000 2000", got)
	}
	p.wantStep("waiting", "has expired")

	// a token that nothing can replace
	p.see(`(token) => { client.close(); start({ url: "ws://`+a.Addr+`/ws", token }); }`, old)
	p.wantStep("closed", "has expired")
}

func TestClient_OfAWrongOriginIsToldSoAndStops(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t), startBrowser(t)
	p := b.enter(s, `{ url: "ws://`+a.Addr+`/ws" }`, ``)
	p.wantStep("closed", fmt.Sprintf("Origin: pages of %q may not connect here", s.URL))
	got := p.see(`() => rows("log").map((li) => li.dataset.status).join(" ")`)
	if got != "connecting closed" {
		t.Errorf("the client went through %s", got)
	}
	p.wantListeners(0)
}

func TestClient_WaitsAsLongAsTheServerSays(t *testing.T) {
	t.Parallel()
	s, b := openShop(t), startBrowser(t)
	s.answer("/ws", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3000")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		text(503, `{"detail":"this instance is full"}`)(w, nil)
	})
	p := b.enter(s, `{}`, ``)
	p.wantStep("waiting", "this instance is full")
	delay := p.see(`() => rows("log").at(-1).dataset.delay`)
	if ms, err := strconv.ParseFloat(delay, 64); err != nil || ms < 3_000_000 || ms > 3_010_000 {
		t.Errorf("the client waits for %s ms, want some 3000 s", delay)
	}
	p.wantAfter(networkIsBack, "waiting") // because the server said until when
	p.wantAfter(pageIsSeen, "waiting")
	p.wantAfter("client.close()", "closed")
}

func TestHandshake_RefusalCanBeReadByAnyPage(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--no-allow-anonymous")
	for origin, code := range map[string]string{"http://" + a.Addr: "no_token",
		"https://elsewhere.example": "bad_origin"} {
		got := ask(t, a, "GET", "/ws", "", http.Header{"Origin": {origin}, "Authorization": nil})
		if got.Body["code"] != code || got.Header.Get("Access-Control-Allow-Origin") != origin ||
			got.Header.Get("Access-Control-Expose-Headers") != "Retry-After" ||
			got.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: %s %v, want %s, and the page to be allowed to read it", origin, got.text,
				got.Header, code)
		}
	}
}

func TestClient_ComesBackAtOnceWhenTheNetworkOrThePageDoes(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{"network": networkIsBack, "page": pageIsSeen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := openShop(t), startBrowser(t)
			p := b.enter(s, `{}`, `Math.random = () => 1`) // the shop has no /ws: 404
			p.await("a long wait", `() => rows("log").some((li) => li.dataset.delay >= 4000)`)
			p.wantAfter(event, "connecting")
		})
	}
}

func TestClient_LeavesADeadPathWhenTheNetworkOrThePageComesBack(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{"network": networkIsBack, "page": pageIsSeen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t)
			a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
			way := startLink(t, a.Addr)
			p := b.enter(s, `{ url: "ws://`+way.addr+`/ws", token: "`+token(t,
				"alice")+`", timeouts: { pong: 500 } }`, ``)
			before := p.wantSockets(1)
			way.loseAll()
			p.see(`() => { ` + event + `; }`)
			if now := p.wantSockets(2); now == before {
				t.Error("the second welcome is for the same socket")
			}
			p.wantStep("waiting", "nothing answered on this connection for 0.5 s")
			delay := p.see(`() => rows("log").find((li) => li.dataset.reason.startsWith("nothing answered"))
				.dataset.delay`)
			if delay != "0" {
				t.Errorf("the client waited for %s ms, want it to come back at once", delay)
			}
			p.see(`() => { client.on("order.paid", () => { document.body.dataset.paid = "yes"; }); }`)
			push(t, a, "alice", `{"event":"order.paid"}`, "online", 1)
			p.await("a push on the new path", `() => document.body.dataset.paid === "yes"`)
		})
	}
}

// startScripted starts a shop whose /ws follows a script, and a page whose client is connected to it.
func startScripted(t *testing.T, heartbeatMS int, options, before string) (*scripted, *tab) {
	t.Helper()
	s, b := openShop(t), startBrowser(t)
	server := &scripted{heartbeatMS: heartbeatMS, happened: make(chan string, 100_000)}
	s.mux.Handle("GET /ws", server)
	return server, b.enter(s, options, before)
}

// next waits for the next thing that the server sees.
func (s *scripted) next(t *testing.T) string {
	t.Helper()
	select {
	case what := <-s.happened:
		return what
	case <-time.After(redistest.Patience):
		t.Fatal("the server saw nothing")
		return ""
	}
}

func (s *scripted) want(t *testing.T, what string) {
	t.Helper()
	if got := s.next(t); got != what {
		t.Fatalf("the server saw %s, want %s", got, what)
	}
}

func TestClient_PingsAfterASilenceAndLeavesAPathThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server, p := startScripted(t, 20, `{ timeouts: { pong: 2000 } }`, ``)
	server.answers.Store(true)
	for pings := 0; pings < 3; pings++ { // one after the other, on one socket
		if server.next(t) == "open" {
			pings = -1
		}
	}
	server.answers.Store(false)
	for server.next(t) != "open" {
		continue // pings that were under way
	}
	p.wantStep("waiting", "nothing answered on this connection")
}

func TestClient_DoesNotTakeAPageThatSleptForADeadPath(t *testing.T) {
	t.Parallel()
	server, p := startScripted(t, 3_600_000, `{ timeouts: { pong: 500 } }`, `
		const send = WebSocket.prototype.send;
		let slept = false;
		WebSocket.prototype.send = function (text) {
			send.call(this, text);
			if (slept) return;
			slept = true;
			for (const until = performance.now() + 2000; performance.now() < until; );
		}`)
	server.want(t, "open")
	p.wantSockets(1)
	p.see(`() => { ` + networkIsBack + `; }`)
	server.want(t, "ping")
	server.want(t, "ping") // once more, on the same socket
	server.want(t, "open") // now nothing came in time
}

func TestClient_LeavesNoListenerBehind(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
	p := b.enter(s, `{ url: "ws://`+a.Addr+`/ws", token: "`+token(t, "alice")+`" }`, ``)
	p.wantSockets(1)
	p.wantListeners(2)
	p.wantAfter("client.close()", "closed")
	p.wantListeners(0)

	p.wantAfter("client.connect()", "connecting")
	p.wantSockets(2)
	p.wantListeners(2)
	ask(t, a, "DELETE", "/presence/alice", "")
	p.wantStep("closed", "kicked")
	p.wantListeners(0)

	p.see(`() => start({ url: "/nothing", token: "" })`)
	p.wantStep("waiting", "404")
	p.wantAfter("client.close()", "closed")
	p.wantListeners(0)
}

func TestClient_WorksInAWorker(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	a, b := startApp(t, "--allowed-origins="+s.URL), startBrowser(t)
	s.answer("/worker.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		text(200, `import { Rollcall } from "/rollcall.js";
			const client = new Rollcall({ url: "ws://`+a.Addr+`/ws" });
			client.on("rollcall:welcome", (welcome) => postMessage(welcome.socket));
			client.connect();`)(w, nil)
	})
	p := b.visit(&tab{t: t, name: "the tab in the shop"}, s.URL+"/")
	if socket := p.see(`() => new Promise((resolve) => {
		new Worker("/worker.js", { type: "module" }).onmessage = ({ data }) => resolve(data);
	})`); socket == "" {
		t.Error("no welcome")
	}
}

func TestClient_DoesNotComeBackForAPageThatIsHidden(t *testing.T) {
	t.Parallel()
	s, b := openShop(t), startBrowser(t)
	p := b.enter(s, `{}`, ``) // the shop has no /ws: 404
	p.wantStep("waiting", "404")
	if changed := p.see(`async () => {
		Object.defineProperty(document, "visibilityState", { get: () => "hidden" });
		const { status } = client;
		document.dispatchEvent(new Event("visibilitychange"));
		for (let i = 0; i < 50; i++) await null;
		return status === client.status ? "" : status + " to " + client.status;
	}`); changed != "" {
		t.Errorf("the client went from %s", changed)
	}
}
