package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/domdebugger"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
	"rollcall/static"
)

// shop is the web site of somebody who uses Rollcall. Its one page has rollcall.js, and a list of the
// statuses that the client had: see start. A test adds what else the shop answers.
type shop struct {
	*httptest.Server
	t   *testing.T
	mux *http.ServeMux
}

const shopPage = `<!doctype html>
<link rel="icon" href="data:,">
<ol id="log"></ol>
<script type="module">
	import { Rollcall } from "/rollcall.js";
	window.start = (options) => {
		window.client = new Rollcall(options);
		client.addEventListener("status", ({ detail }) => {
			const entry = document.createElement("li");
			const { status, reason, delay, welcome } = detail;
			Object.assign(entry.dataset, {
				status, reason: reason ?? "", delay: delay ?? "", socket: welcome?.socket ?? "",
			});
			entry.textContent = JSON.stringify(detail);
			document.getElementById("log").append(entry);
		});
		client.connect();
	};
</script>`

func openShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, shopPage)
	})
	s.mux.Handle("GET /rollcall.js", http.FileServerFS(static.Files))
	s.Server = httptest.NewServer(s.mux)
	t.Cleanup(func() {
		s.CloseClientConnections() // or those that hang would keep it open
		s.Close()
	})
	return s
}

// answer sets how the shop answers a path: the nth request with the nth answer, and later ones with the last.
func (s *shop) answer(path string, answers ...http.HandlerFunc) {
	var requests atomic.Int64
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		n := int(requests.Add(1))
		answers[min(n, len(answers))-1](w, r)
	})
}

// text answers with a text.
func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hang sends no answer, and returns when the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// enter opens the shop's page and starts the client in it with these options, which are JavaScript. The
// script before runs first.
func (b *browser) enter(s *shop, options, before string) *tab {
	b.t.Helper()
	p := b.visit(&tab{t: b.t, name: "the tab in the shop", allowsRefusals: true}, s.URL+"/")
	p.see(`async () => { ` + before + `; start(` + options + `); }`)
	return p
}

// wantStep waits until the client in a shop's page has had this status, with a reason that contains this
// text.
func (p *tab) wantStep(status, reason string) {
	p.t.Helper()
	p.await(fmt.Sprintf("the status %s with %q", status, reason), `(status, reason) =>
		rows("log").some((li) =>
		li.dataset.status === status && li.dataset.reason.includes(reason))`, status, reason)
}

// wantSockets waits until the client in a shop's page was welcomed so many times, and returns the id of its
// last socket.
func (p *tab) wantSockets(welcomes int) (socket string) {
	p.t.Helper()
	p.await(fmt.Sprintf("%d welcomes", welcomes),
		`(n) => rows("log").filter((li) => li.dataset.status === "open").length >= n`, welcomes)
	return p.see(`() => rows("log").findLast((li) => li.dataset.status === "open").dataset.socket`)
}

// wantAfter dispatches an event in the page, and checks the client's status before any timer can run.
func (p *tab) wantAfter(event, status string) {
	p.t.Helper()
	if got := p.see(`async () => {
		` + event + `;
		for (let i = 0; i < 50; i++) await null;
		return client.status;
	}`); got != status {
		p.t.Errorf("%s: after %s the client is %s, want %s", p.name, event, got, status)
	}
}

const (
	networkIsBack = `dispatchEvent(new Event("online"))`
	pageIsSeen    = `document.dispatchEvent(new Event("visibilitychange"))`
)

// wantListeners checks how many listeners window and document have together.
func (p *tab) wantListeners(want int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, redistest.Patience)
	defer cancel()
	got := 0
	for _, target := range []string{"window", "document"} {
		object, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: target})
		if err != nil {
			p.t.Fatal(err)
		}
		found, err := chromedp.Call(ctx, domdebugger.GetEventListeners,
			domdebugger.GetEventListenersParams{ObjectID: object.Result.ObjectID})
		if err != nil {
			p.t.Fatal(err)
		}
		got += len(found.Listeners)
	}
	if got != want {
		p.t.Errorf("%s: %d listeners on window and document, want %d", p.name, got, want)
	}
}

// scripted is a server that sends a welcome, and then only what a test has it send.
type scripted struct {
	heartbeatMS int
	answers     atomic.Bool // pings
	happened    chan string // "open" or "ping"
}

// ServeHTTP makes it the handler of /ws.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	s.happened <- "open"
	welcome := fmt.Sprintf(`{"event":"rollcall:welcome","data":{"socket":"1","limits":{"heartbeatMs":%d}}}`,
		s.heartbeatMS)
	_ = conn.WriteMessage(websocket.TextMessage, []byte(welcome))
	for {
		var f frame
		if conn.ReadJSON(&f) != nil {
			return
		}
		if f.Event == "rollcall:ping" {
			s.happened <- "ping"
		}
		if s.answers.Load() {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"rollcall:pong","data":{}}`))
		}
	}
}
