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
	clusterLease = time.Second
	clusterGrace = 2 * time.Second
)

// cluster is three instances in processes of their own, each with its own link to one Redis, and clients that always come back.
type cluster struct {
	t           *testing.T
	server      *redistest.Server // nil: one that must not be harmed, or more than one
	url         *url.URL          // of Redis, past the links
	redisClient rueidis.Client    // past the links
	linked      bool              // instances reach Redis through links
	sharesClock bool              // Redis has this machine's clock
	prefix      string
	flags       []string // more settings of all instances
	paths       []string // of the binary at each node; none: all the usual one

	httpClient    *http.Client
	nodes         []*node
	pool          *clientPool
	lastLogID     string   // id of the last entry of the log that was looked at
	othersClients []string // clients of a Redis that is not ours, which subscribed before us
	report        *report

	endedInstances sync.Map // instances that were killed or told to stop
}

// startCluster starts a cluster with so many users, on a Redis of its own unless it is changed to be on another.
func startCluster(t *testing.T, people int, change ...func(*cluster)) *cluster {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	c := &cluster{
		t: t, prefix: "rollcall:1:", lastLogID: "0", report: newReport(), paths: []string{mustBinary(t), mustBinary(t), mustBinary(t)},
		httpClient: &http.Client{Transport: transport, Timeout: redistest.Patience / 2},
	}
	for _, adjust := range change {
		adjust(c)
	}
	if c.url == nil {
		c.server = redistest.Start(t)
		c.reachedAt(c.server.URL(), c.server.Client())
		c.linked, c.sharesClock = true, true
	}
	for _, path := range c.paths {
		n := &node{cluster: c, path: path}
		if c.linked {
			n.link = startLink(t, c.url.Host)
		}
		c.nodes = append(c.nodes, n)
		n.start()
	}
	c.pool = startClientPool(c, people)
	c.pool.await("everybody to be connected", c.pool.allConnectedLocked)
	c.wantExact()
	c.wantFirstLog()
	return c
}

// reachedAt says where Redis is.
func (c *cluster) reachedAt(address string, direct rueidis.Client) {
	c.t.Helper()
	var err error
	if c.url, err = url.Parse(address); err != nil {
		c.t.Fatal(err)
	}
	c.redisClient = direct
}

// serving are the nodes whose instance runs.
func (c *cluster) serving() []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return !n.serves() })
}

// node is a place for one instance after another, with a link of its own to Redis.
type node struct {
	cluster *cluster
	path    string // of the binary
	link    *link  // nil: it reaches Redis directly

	mu sync.Mutex
	// mu guards the following
	process *process
	up      bool          // neither killed, nor told to stop, nor paused
	stops   int           // times that it was any of these
	cutOff  time.Duration // in this run: how long this one could not talk to Redis and others could
}

// start starts a new instance here.
func (n *node) start() {
	n.cluster.t.Helper()
	at := *n.cluster.url
	if n.link != nil {
		at.Host = n.link.addr
	}
	flags := []string{"--redis-url=" + at.String(), "--prefix=" + n.cluster.prefix, "--shards=1", "--lease=" + clusterLease.String(), "--grace=" + clusterGrace.String()}
	p := startBinary(n.cluster.t, n.path, append(flags, n.cluster.flags...)...)
	n.cluster.t.Cleanup(func() { n.cluster.endedInstances.Store(p.Instance, true) }) // before it is killed
	n.comeUp(p)
}

func (n *node) state() (p *process, up bool, stops int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process, n.up, n.stops
}

func (n *node) instance() *process {
	p, _, _ := n.state()
	return p
}

func (n *node) serves() bool {
	_, up, _ := n.state()
	return up
}

func (n *node) comeUp(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process, n.up = p, true
}

func (n *node) goDown() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	n.stops++
}

func (n *node) addCutOff(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cutOff += d
}

func (n *node) cutOffFor() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cutOff
}

// kill ends the instance as a crash does.
func (n *node) kill() {
	n.goDown()
	n.cluster.endedInstances.Store(n.instance().Instance, true)
	n.instance().killInstance()
}

// leave tells the instance to stop, and waits until it has.
func (n *node) leave() {
	n.cluster.t.Helper()
	n.goDown()
	n.cluster.endedInstances.Store(n.instance().Instance, true)
	n.instance().signal(syscall.SIGTERM)
	n.instance().wantExit(0)
}

// freeze makes the instance hang, as a machine does that swaps; thaw ends that.
func (n *node) freeze() { n.goDown(); n.instance().signal(syscall.SIGSTOP) }
func (n *node) thaw()   { n.instance().signal(syscall.SIGCONT); n.comeUp(n.instance()) }

// call asks the instance as a backend does. ok: the instance ran throughout, so there must be an answer.
func (n *node) call(method, path, body string) (got answer, ok bool, err error) {
	p, up, stops := n.state()
	began := time.Now()
	got, err = n.cluster.ask(p.App, method, path, body)
	if _, _, later := n.state(); up && later == stops {
		ok = true
		n.cluster.report.called(time.Since(began))
	}
	return got, ok, err
}

func (c *cluster) ask(a *App, method, path, body string) (answer, error) {
	return askWith(c.httpClient, a, method, path, body)
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
