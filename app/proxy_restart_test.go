package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rollcall/lua/redistest"
)

const (
	restartClients = 300
	restartPages   = 2 // each in a profile of its own: a browser opens at most 255 WebSockets for one
	restartPushers = 2
)

func TestProxy_ARollingRestartBehindItLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	b := startBalanced(t)
	browser := startBrowser(t)
	var audiences []*audience
	for _, f := range b.fronts {
		audiences = append(audiences, browser.openClients(f))
	}
	for _, c := range audiences {
		c.awaitOpen()
	}
	came := b.wantAllOnline(audiences)
	for _, c := range audiences {
		c.startPushing()
	}
	for place := range b.instances {
		b.restart(place)
	}
	for _, c := range audiences {
		c.stopPushing()
		c.awaitOpen()
	}
	if now := b.wantAllOnline(audiences); !slices.Equal(now, came) {
		t.Errorf("the log had %d entries and has %d: %v", len(came), len(now), now)
	}
	for _, c := range audiences {
		c.pushFence()
		c.wantReceived()
	}
}

// audience is many clients of rollcall.js, each of a user of its own, that connect through one proxy, and a
// backend that pushes to them.
type audience struct {
	t     *testing.T
	front *front
	users []string
	pages []*tab

	over chan struct{}
	done sync.WaitGroup
	next atomic.Int64

	mu sync.Mutex
	// mu guards the following
	answered map[int64]numberedPush
	statuses map[string]int
}

// numberedPush is a push that has its answer.
type numberedPush struct {
	user     string
	written  int
	sent, at time.Time
}

// openClients opens pages with one client for each user. The clients begin to connect.
func (b *browser) openClients(f *front) *audience {
	b.t.Helper()
	c := &audience{
		t: b.t, front: f, over: make(chan struct{}),
		answered: map[int64]numberedPush{}, statuses: map[string]int{},
	}
	for n := range restartClients {
		name := []string{"alice", "bob", "cathy"}[n%3]
		c.users = append(c.users, fmt.Sprintf("%s-%s-%03d", name, f.program, n))
	}
	for part := range slices.Chunk(c.users, restartClients/restartPages) {
		p := b.openApart(f.public, "/rollcall.js")
		p.name = "a page of clients behind " + f.program
		p.allowRefusals() // by instances that leave
		tokens := map[string]string{}
		for _, user := range part {
			tokens[user] = token(b.t, user, lastsLong)
		}
		p.see(runClients, tokens)
		c.pages = append(c.pages, p)
	}
	return c
}

// openApart opens a page in a profile of its own.
func (b *browser) openApart(a *App, address string) *tab {
	b.t.Helper()
	p := &tab{t: b.t, origin: "http://" + a.Addr}
	profile := chromedp.WithNewBrowserContext()
	p.ctx, p.leave = chromedp.NewContext(b.ctx, profile, chromedp.WithListener(p.notice))
	b.t.Cleanup(p.close)
	if err := chromedp.Do(p.ctx); err != nil { // opens the tab, which would end with a shorter context
		b.t.Fatalf("open a tab: %v", err)
	}
	p.do(chromedp.Navigate(p.origin + address))
	return p
}

// awaitOpen waits until all clients are connected. It gives up only when no more connect.
func (c *audience) awaitOpen() {
	c.t.Helper()
	for _, p := range c.pages {
		for some := 0; some <= restartClients/restartPages; some += 10 {
			want := fmt.Sprintf("%d clients to be connected", some)
			p.await(want, `(some) => Number(document.body.dataset.open) >= some`, some)
		}
	}
}

// runClients starts clients in a page, which keep what they receive.
const runClients = `async (tokens) => {
	const { Rollcall } = await import("/rollcall.js");
	const tell = () => {
		document.body.dataset.open = clients.filter((one) => one.open).length;
		document.body.dataset.fenced = clients.filter((one) => one.fenced).length;
	};
	window.clients = Object.keys(tokens).map((user) => (
		{ user, open: false, fenced: false, socket: 0, pushes: [], history: [] }
	));
	for (const one of clients) {
		const client = new Rollcall({ token: tokens[one.user] });
		client.addEventListener("status", ({ detail }) => {
			const { status, code, reason, welcome } = detail;
			one.history.push([Date.now(), status, code, reason, welcome?.instance]);
			one.open = detail.status === "open";
			one.socket += one.open;
			tell();
		});
		client.on("numbered", (n, { id }) => { one.pushes.push({ n, id, socket: one.socket }); });
		client.on("fence", () => { one.fenced = true; tell(); });
		client.connect();
	}
}`

// wantAllOnline waits until every user is reported with exactly one socket, and returns the log of changes.
func (b *balanced) wantAllOnline(audiences []*audience) []string {
	b.t.Helper()
	all := 0
	for _, c := range audiences {
		all += len(c.users)
	}
	redistest.Eventually(b.t, "everybody to be online", func() (string, bool) {
		got := ask(b.t, b.instances[0].App, "GET", "/presence?limit=1000", "")
		online := strings.Count(got.text, `"state":"online"`)
		return got.text, online == all && strings.Count(got.text, `"sockets":1,`) == all
	})
	return slices.Sorted(slices.Values(b.redis.Changes(b.redis.Client(), "rollcall:1:{0}:log")))
}

// restart replaces an instance, and waits until each proxy sends sockets to the new one.
func (b *balanced) restart(place int) {
	b.t.Helper()
	b.instances[place].signal(syscall.SIGTERM)
	b.instances[place].wantExit(0)
	b.start(place)
	for _, f := range b.fronts {
		redistest.Eventually(b.t, f.program+" to find the new instance", func() (string, bool) {
			s := open(b.t, "ws://"+f.public.Addr+"/ws", nil)
			welcome := s.next()
			s.leave()
			return string(welcome.Data), strings.Contains(string(welcome.Data), b.instances[place].Instance)
		})
	}
}

// startPushing lets a backend push numbers to the users in turn, through the proxy.
func (c *audience) startPushing() {
	for range restartPushers {
		c.done.Go(c.pushOn)
	}
	c.t.Cleanup(c.stopPushing)
}

func (c *audience) pushOn() {
	calls := &http.Client{Transport: &http.Transport{}, Timeout: redistest.Patience / 2}
	defer calls.CloseIdleConnections()
	for {
		select {
		case <-c.over:
			return
		default:
			c.push(calls, c.next.Add(1))
		}
	}
}

func (c *audience) push(calls *http.Client, n int64) {
	user := c.users[n%int64(len(c.users))]
	body := fmt.Sprintf(`{"event":"numbered","data":%d}`, n)
	sent := time.Now()
	got, err := askWith(calls, c.front.backends, "POST", "/push/"+user+"?wait=written&timeout=5s", body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.statuses["no answer"]++
		return
	}
	c.statuses[fmt.Sprint(got.Status)]++
	if counts, ok := got.Body["sockets"].(map[string]any); ok && got.Status == http.StatusOK {
		written, _ := counts["written"].(float64)
		c.answered[n] = numberedPush{user, int(written), sent, time.Now()}
	}
}

// stopPushing waits for the last answers.
func (c *audience) stopPushing() {
	select {
	case <-c.over:
	default:
		close(c.over)
	}
	c.done.Wait()
}

// pushFence pushes to everybody, after everything else.
func (c *audience) pushFence() {
	c.t.Helper()
	body := marshal(c.t, map[string]any{"event": "fence", "users": c.users})
	got := ask(c.t, c.front.backends, "POST", "/push?wait=written&timeout=5s", string(body))
	if n := strings.Count(got.text, `"written":1,`); n != len(c.users) {
		c.t.Fatalf("behind %s the last push reaches %d sockets: %d %s",
			c.front.program, n, got.Status, got.text)
	}
}

// receipt is a push that a client got on its n-th socket.
type receipt struct {
	N      int64
	ID     string
	Socket int
}

// received waits for the last push, and returns all that came before it, by number.
func (c *audience) received() map[int64][]receipt {
	c.t.Helper()
	came := map[int64][]receipt{}
	for _, p := range c.pages {
		p.await("the last push everywhere", `() => Number(document.body.dataset.fenced) === clients.length`)
		var clients []struct {
			User   string
			Pushes []receipt
		}
		if err := json.Unmarshal([]byte(p.see(`() => JSON.stringify(clients)`)), &clients); err != nil {
			c.t.Fatal(err)
		}
		for _, one := range clients {
			for _, push := range one.Pushes {
				if user := c.users[push.N%int64(len(c.users))]; user != one.User {
					c.t.Errorf("push %d is for %s and came to %s", push.N, user, one.User)
				}
				came[push.N] = append(came[push.N], push)
			}
		}
	}
	return came
}

// history is what a user's client noted of its connections, for a failure.
func (c *audience) history(user string) string {
	const see = `(user) => JSON.stringify(clients.find((one) => one.user === user)?.history ?? null)`
	for _, p := range c.pages {
		if history := p.see(see, user); history != "null" {
			return history
		}
	}
	return "nobody"
}

// wantReceived checks that each push that was written arrived, and that no number arrived twice: neither on
// one socket, nor as two pushes, which a proxy makes when it repeats a request.
func (c *audience) wantReceived() {
	c.t.Helper()
	came, written := c.received(), 0
	for n, push := range c.answered {
		written += push.written
		if len(came[n]) < push.written {
			c.t.Errorf("push %d to %s was written, and did not come: sent %v, answered %v by the clock of %s",
				n, push.user, push.sent.UnixMilli(), push.at.UnixMilli(), c.history(push.user))
		}
	}
	for n, receipts := range came {
		if len(receipts) > 1 {
			c.t.Errorf("push %d came %d times: %+v", n, len(receipts), receipts)
		}
	}
	c.t.Logf("behind %s: pushes answered, by status: %v; %d written, %d received",
		c.front.program, c.statuses, written, len(came))
	if written == 0 {
		c.t.Errorf("behind %s no push was written", c.front.program)
	}
}
