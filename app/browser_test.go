package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"rollcall/lua/redistest"
)

// browser is a Chromium that can reach nothing but this machine.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// startBrowser starts a browser that ends with the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	redistest.StartsProcess(t, "a browser")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // containers often lack what it needs
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	process, kill := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(kill)
	ctx, quit := chromedp.NewContext(process)
	t.Cleanup(quit)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium, in which the page is tested, does not start: %v\n"+
			"On Debian: apt-get install chromium. `make deps` does it as root. "+
			"Elsewhere, install Chromium or Google Chrome where the PATH finds it.", err)
	}
	return &browser{t, ctx}
}

// tab is a page in a window of its own.
type tab struct {
	t      *testing.T
	name   string // for messages
	origin string // of Rollcall's own page, which asks nowhere else; empty: a page of somebody else's
	ctx    context.Context
	leave  context.CancelFunc

	// owned by the test
	closed         bool
	allowsRefusals bool

	mu sync.Mutex
	// mu guards the following
	faults   []string // what a sound page does not do
	refusals []string // requests that got no answer or an error
}

// open opens the page of an instance. The address may say as whom: /?user=alice, or /?user= for an anonymous
// one. When the test ends, the page must have shown no error.
func (b *browser) open(a *App, address string, before ...chromedp.Action[chromedp.Void]) *tab {
	b.t.Helper()
	origin := "http://" + a.Addr
	return b.visit(&tab{t: b.t, origin: origin, name: fmt.Sprintf("the tab at %.20q", address)},
		origin+address, before...)
}

// visit opens an address in the tab.
func (b *browser) visit(p *tab, address string, before ...chromedp.Action[chromedp.Void]) *tab {
	b.t.Helper()
	// Each has a window of its own, because a page that is not visible does not ask who is online.
	p.ctx, p.leave = chromedp.NewContext(b.ctx, chromedp.WithNewWindow(true), chromedp.WithListener(p.notice))
	b.t.Cleanup(p.close)
	if _, err := chromedp.Call(p.ctx, network.Enable, network.EnableParams{}); err != nil { // opens the tab
		b.t.Fatalf("%s: open a tab: %v", p.name, err)
	}
	p.do(append(before, chromedp.Navigate(address))...)
	return p
}

// openAs opens the page as a user, and waits for the welcome.
func (b *browser) openAs(a *App, user string) *tab {
	b.t.Helper()
	p := b.open(a, "/?user="+url.QueryEscape(user))
	p.name = fmt.Sprintf("the tab of %.20q", user)
	p.wantWelcome(a, user)
	return p
}

// close closes the tab as a user does, and fails the test if the page had an error.
func (p *tab) close() {
	if p.closed {
		return
	}
	p.closed = true
	_, _ = p.call(`() => {}`) // when it is answered, all that happened before has been noticed
	p.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := p.faults
	if !p.allowsRefusals {
		faults = append(faults, p.refusals...)
	}
	for _, fault := range faults {
		p.t.Errorf("%s: the page %s", p.name, fault)
	}
}

// allowRefusals allows the server to refuse what this page asks, or not to answer.
func (p *tab) allowRefusals() { p.allowsRefusals = true }

// notice collects errors from the events of the browser.
func (p *tab) notice(event any) {
	fault, refusal := faultOf(event, p.origin)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case refusal:
		p.refusals = append(p.refusals, fault)
	case fault != "":
		p.faults = append(p.faults, fault)
	}
}

// faultOf returns what a page without errors would not cause, if the event is of that kind. refusal says that
// the server refused a request, or did not answer it.
func faultOf(event any, origin string) (fault string, refusal bool) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault = "threw: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		fault = fmt.Sprintf("called console.%s", e.Type)
	case *cdplog.EventEntryAdded: // among others, of the Content-Security-Policy
		if e.Entry.Level == cdplog.EntryLevelError {
			fault = fmt.Sprintf("caused an error: %s %s", e.Entry.Text, e.Entry.URL)
			refusal = e.Entry.Source == cdplog.EntrySourceNetwork ||
				strings.HasPrefix(e.Entry.Text, "WebSocket connection to")
		}
	case *cdppage.EventJavascriptDialogOpening:
		fault = "opened a dialog: " + e.Message
	case *network.EventRequestWillBeSent:
		if origin != "" && !strings.HasPrefix(e.Request.URL, origin+"/") {
			fault = "asked elsewhere: " + e.Request.URL
		}
	case *network.EventWebSocketCreated:
		if origin != "" && !strings.HasPrefix(e.URL, strings.Replace(origin, "http:", "ws:", 1)+"/ws") {
			fault = "connected elsewhere: " + e.URL
		}
	}
	return fault, refusal
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, redistest.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// see calls a JavaScript function in the page and returns its text, if it returns any.
func (p *tab) see(function string, args ...any) string {
	p.t.Helper()
	text, err := p.call(function, args...)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return text
}

func (p *tab) call(function string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(p.ctx, redistest.Patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`(async () => {
		const $ = (id) => document.getElementById(id);
		const rows = (id) => [...$(id).children];
		return String((await (%s)(...%s)) ?? "");
	})()`, function, marshal(p.t, append([]any{}, args...))), chromedp.EvalAwaitPromise))
}

// await waits until a JavaScript function in the page returns true. It is called again after every change of
// the page.
func (p *tab) await(want, function string, args ...any) {
	p.t.Helper()
	_, err := p.call(`(...args) => new Promise((resolve) => {
		const look = () => {
			if (!(`+function+`)(...args)) return;
			changes.disconnect();
			resolve();
		};
		const changes = new MutationObserver(look);
		changes.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		look();
	})`, args...)
	if err != nil {
		p.t.Fatalf("%s: want %s: %v\n%s", p.name, want, err, p.see(`() => document.body.innerText`))
	}
}

// fill types into a field.
func (p *tab) fill(field, text string) {
	p.t.Helper()
	p.see(`(id, text) => {
		$(id).value = text;
		$(id).dispatchEvent(new Event("change", { bubbles: true }));
	}`, field, text)
}

// press presses a button as soon as it is enabled.
func (p *tab) press(button string) {
	p.t.Helper()
	p.await("a button "+button+" that can be pressed", `(id) => !$(id).disabled && $(id).checkVisibility()`,
		button)
	p.see(`(id) => { $(id).click(); }`, button)
}

func (p *tab) send(event, data string) {
	p.t.Helper()
	p.fill("event", event)
	p.fill("data", data)
	p.press("send")
}

// push pushes with the page's form and checks what the page then says about it.
func (p *tab) push(user, event, data, want string) {
	p.t.Helper()
	p.fill("push-user", user)
	p.pushAs("push", event, data, want)
}

// emit emits with the page's form, to "all" or "authenticated".
func (p *tab) emit(whom, event, data, want string) {
	p.t.Helper()
	p.pushAs("emit-"+whom, event, data, want)
}

func (p *tab) pushAs(button, event, data, want string) {
	p.t.Helper()
	p.fill("push-event", event)
	p.fill("push-data", data)
	p.wantAnswer(button, want)
}

// exclude chooses whether pushes of the form leave out this tab's socket.
func (p *tab) exclude(itself bool) {
	p.t.Helper()
	p.see(`(yes) => { $("push-exclude").checked = yes; }`, itself)
}

// wantAnswer presses a button of the push form and checks what the page then says about it.
func (p *tab) wantAnswer(button, want string) {
	p.t.Helper()
	p.see(`() => $("push-answer").replaceChildren()`)
	p.press(button)
	p.await("an answer", `() => $("push-answer").hasChildNodes()`)
	if got := p.see(`() => $("push-answer").firstChild.textContent`); got != want {
		p.t.Fatalf("%s: after %s the page says %q, want %q", p.name, button, got, want)
	}
}

// wantWelcome waits until the tab shows that it is connected to an instance as a user.
func (p *tab) wantWelcome(a *App, user string) {
	p.t.Helper()
	p.await(fmt.Sprintf("a welcome of %s for %q", a.Instance, user), `(instance, user) => {
		const welcome = $("welcome").dataset;
		return $("status").textContent === "Connected" && welcome.instance === instance &&
			welcome.user === user &&
			welcome.reachable === "true" && $("welcome-socket").textContent === welcome.socket &&
			$("welcome-user").textContent === (user || "anonymous") &&
			$("log").querySelector("[data-event='rollcall:welcome']");
	}`, a.Instance, user)
}

// wantStatus waits until the status of the connection in the page begins with this text.
func (p *tab) wantStatus(words string) {
	p.t.Helper()
	p.await("the status "+words, `(words) => $("status").textContent.startsWith(words)`, words)
}

// wantLog waits until the last of these frames has arrived, and checks that exactly these have, in this
// order. Frames of the protocol itself are left out. A frame is its event, its data, and its ref if it has
// one.
func (p *tab) wantLog(want ...string) {
	p.t.Helper()
	const log = `rows("log").reverse().filter((li) => !li.dataset.event.startsWith("rollcall:"))
		.map((li) => [li.dataset.event, li.dataset.data, li.dataset.ref && "ref " + li.dataset.ref]
			.filter(Boolean).join(" "))`
	p.await("the frame "+want[len(want)-1], `(last) => `+log+`.includes(last)`, want[len(want)-1])
	if got := p.see(`() => ` + log + `.join("\n")`); got != strings.Join(want, "\n") {
		p.t.Errorf("%s: got the frames\n%s\nwant\n%s", p.name, got, strings.Join(want, "\n"))
	}
}

// wantListed waits until the page lists a user with this state and so many sockets.
func (p *tab) wantListed(user, state string, sockets int) {
	p.t.Helper()
	p.await(fmt.Sprintf("%q listed as %s with %d sockets", user, state, sockets), `(user, state, sockets) =>
		rows("online").some((li) =>
		li.querySelector(".name").textContent === user && li.querySelector(".state").textContent === state &&
		li.dataset.sockets === String(sockets))`, user, state, sockets)
}

// wantUnlisted waits until the page no longer lists a user.
func (p *tab) wantUnlisted(user string) {
	p.t.Helper()
	p.await(user+" not listed", `(user) => rows("online").every((li) => li.dataset.user !== user)`, user)
}
