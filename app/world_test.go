package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// Short, so that a lapse takes no minute; far longer than a stall of a busy machine.
const (
	worldLease = time.Second
	worldGrace = 2 * time.Second
)

// world is three instances in processes of their own, each with its own link to one Redis, and clients that always come back.
type world struct {
	t      *testing.T
	server *redistest.Server // nil: one that must not be harmed, or more than one
	url    *url.URL          // of Redis, past the links
	direct rueidis.Client    // past the links
	linked bool              // instances reach Redis through links
	near   bool              // Redis has this machine's clock
	prefix string
	flags  []string // more settings of all instances
	paths  []string // of the binary at each site; none: all the usual one

	calls     *http.Client
	sites     []*site
	regulars  *regulars
	logged    string   // id of the last entry of the log that was looked at
	strangers []string // clients of a Redis that is not ours, which subscribed before us
	report    *report

	ended sync.Map // instances that were killed or told to stop
}

// startWorld starts a world with so many people, on a Redis of its own unless it is changed to be on another.
func startWorld(t *testing.T, people int, change ...func(*world)) *world {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	w := &world{
		t: t, prefix: "rollcall:1:", logged: "0", report: newReport(), paths: []string{mustBinary(t), mustBinary(t), mustBinary(t)},
		calls: &http.Client{Transport: transport, Timeout: patience / 2},
	}
	for _, c := range change {
		c(w)
	}
	if w.url == nil {
		w.server = redistest.Start(t)
		w.at(w.server.URL(), w.server.Client())
		w.linked, w.near = true, true
	}
	for _, path := range w.paths {
		n := &site{w: w, path: path}
		if w.linked {
			n.link = startLink(t, w.url.Host)
		}
		w.sites = append(w.sites, n)
		n.start()
	}
	w.regulars = startRegulars(w, people)
	w.regulars.await("everybody to be connected", w.regulars.completeLocked)
	w.wantExact()
	w.wantFirstLog()
	return w
}

// at says where Redis is.
func (w *world) at(address string, direct rueidis.Client) {
	w.t.Helper()
	var err error
	if w.url, err = url.Parse(address); err != nil {
		w.t.Fatal(err)
	}
	w.direct = direct
}

// serving are the sites whose instance runs.
func (w *world) serving() []*site {
	return slices.DeleteFunc(slices.Clone(w.sites), func(n *site) bool { return !n.serves() })
}

// site is a place for one instance after another, with a link of its own to Redis.
type site struct {
	w    *world
	path string // of the binary
	link *link  // nil: it reaches Redis directly

	mu sync.Mutex
	// mu guards the following
	process *process
	up      bool          // neither killed, nor told to stop, nor paused
	stops   int           // times that it was any of these
	alone   time.Duration // in this step: how long this one could not talk to Redis and others could
}

// start starts a new instance here.
func (n *site) start() {
	n.w.t.Helper()
	at := *n.w.url
	if n.link != nil {
		at.Host = n.link.addr
	}
	flags := []string{"--redis-url=" + at.String(), "--prefix=" + n.w.prefix, "--shards=1", "--lease=" + worldLease.String(), "--grace=" + worldGrace.String()}
	p := startBinary(n.w.t, n.path, append(flags, n.w.flags...)...)
	n.w.t.Cleanup(func() { n.w.ended.Store(p.Instance, true) }) // before it is killed
	n.comeUp(p)
}

func (n *site) state() (p *process, up bool, stops int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process, n.up, n.stops
}

func (n *site) now() *process {
	p, _, _ := n.state()
	return p
}

func (n *site) serves() bool {
	_, up, _ := n.state()
	return up
}

func (n *site) comeUp(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process, n.up = p, true
}

func (n *site) goDown() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	n.stops++
}

func (n *site) wasAlone(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alone += d
}

func (n *site) aloneFor() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alone
}

// kill ends the instance as a crash does.
func (n *site) kill() {
	n.goDown()
	n.w.ended.Store(n.now().Instance, true)
	n.now().killInstance()
}

// leave tells the instance to stop, and waits until it has.
func (n *site) leave() {
	n.w.t.Helper()
	n.goDown()
	n.w.ended.Store(n.now().Instance, true)
	n.now().signal(syscall.SIGTERM)
	n.now().wantExit(0)
}

// freeze makes the instance hang, as a machine does that swaps; thaw ends that.
func (n *site) freeze() { n.goDown(); n.now().signal(syscall.SIGSTOP) }
func (n *site) thaw()   { n.now().signal(syscall.SIGCONT); n.comeUp(n.now()) }

// call asks the instance as a backend does. ok: the instance ran throughout, so there must be an answer.
func (n *site) call(method, path, body string) (got answer, ok bool, err error) {
	p, up, stops := n.state()
	began := time.Now()
	got, err = n.w.ask(p.App, method, path, body)
	if _, _, later := n.state(); up && later == stops {
		ok = true
		n.w.report.called(time.Since(began))
	}
	return got, ok, err
}

func (w *world) ask(a *App, method, path, body string) (answer, error) {
	return askWith(w.calls, a, method, path, body)
}

// askWith makes an HTTP request as a backend with a key, which may fail.
func askWith(calls *http.Client, a *App, method, path, body string) (got answer, err error) {
	request, err := requestTo(context.Background(), a, method, path, body)
	if err != nil {
		return got, err
	}
	response, err := calls.Do(request)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return got, err
	}
	got = answer{Status: response.StatusCode, Header: response.Header, text: string(text)}
	if bytes.HasPrefix(text, []byte("{")) {
		err = json.Unmarshal(text, &got.Body)
	}
	return got, err
}
