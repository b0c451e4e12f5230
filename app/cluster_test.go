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
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// Short, so that a test need not wait long until a lease is over, and far longer than a busy machine holds up
// a process.
const (
	clusterLease = time.Second
	clusterGrace = 2 * time.Second
)

// cluster is three instances in processes of their own, each with a link of its own to one Redis, and a pool
// of clients that always reconnect.
type cluster struct {
	t           *testing.T
	server      *redistest.Server // nil: the Redis is not ours to harm, or it is more than one server
	url         *url.URL          // of Redis, not of a link
	redisClient rueidis.Client    // connects to Redis directly, not through a link
	linked      bool              // instances reach Redis through links
	sharesClock bool              // Redis runs on this machine, with the same clock
	prefix      string
	flags       []string // more settings of all instances

	httpClient    *http.Client
	nodes         []*node
	pool          *clientPool
	lastLogID     string   // of the last entry of the log that newChanges has read
	othersClients []string // ids of subscribers that a Redis, which is not ours, had before us
	report        *report

	endedInstances sync.Map // instances that were killed or told to stop
}

// startCluster starts a cluster with so many users. It is on a Redis of its own, unless adjust chooses
// another.
func startCluster(t *testing.T, users int, adjust ...func(*cluster)) *cluster {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	c := &cluster{
		t: t, prefix: "rollcall:1:", lastLogID: "0", report: newReport(),
		httpClient: &http.Client{Transport: transport, Timeout: redistest.Patience / 2},
	}
	for _, a := range adjust {
		a(c)
	}
	if c.url == nil {
		c.server = redistest.Start(t)
		c.reachedAt(c.server.URL(), c.server.Client())
		c.linked, c.sharesClock = true, true
	}
	for range 3 {
		n := &node{cluster: c}
		if c.linked {
			n.link = startLink(t, c.url.Host)
		}
		c.nodes = append(c.nodes, n)
		n.start()
	}
	c.pool = startClientPool(c, users)
	c.pool.await("everybody to be connected", c.pool.allConnectedLocked)
	c.wantExact()
	c.wantFirstLog()
	return c
}

// reachedAt tells the cluster where Redis is.
func (c *cluster) reachedAt(address string, direct rueidis.Client) {
	c.t.Helper()
	var err error
	if c.url, err = url.Parse(address); err != nil {
		c.t.Fatal(err)
	}
	c.redisClient = direct
}

// serving returns the nodes whose instance runs.
func (c *cluster) serving() []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return !n.serves() })
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
