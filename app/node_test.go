package main

import (
	"sync"
	"syscall"
	"time"

	"rollcall/lua/redistest"
)

// node is a place where one instance runs after another, with a link of its own to Redis.
type node struct {
	cluster *cluster
	link    *link // nil: its instances reach Redis directly

	mu sync.Mutex
	// mu guards the following
	process *process
	up      bool          // the instance was not killed, told to stop or paused
	stops   int           // how often any of these was done
	cutOff  time.Duration // in this run: how long this instance alone could not talk to Redis
}

// start starts a new instance here.
func (n *node) start() {
	n.cluster.t.Helper()
	at := *n.cluster.url
	if n.link != nil {
		at.Host = n.link.addr
	}
	flags := append([]string{
		"--redis-url=" + at.String(), "--prefix=" + n.cluster.prefix, "--shards=1",
		"--lease=" + clusterLease.String(), "--grace=" + clusterGrace.String(),
	}, n.cluster.flags...)
	p := startProcess(n.cluster.t, flags...)
	// before the process is killed
	n.cluster.t.Cleanup(func() { n.cluster.endedInstances.Store(p.Instance, true) })
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

// kill ends the instance at once, as a crash does.
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

// freeze makes the instance hang, as a machine that swaps does. thaw ends that.
func (n *node) freeze() { n.goDown(); n.instance().signal(syscall.SIGSTOP) }
func (n *node) thaw()   { n.instance().signal(syscall.SIGCONT); n.comeUp(n.instance()) }

// call sends a request to the instance, as a backend does. ok says that the instance ran all the time, so
// that there must be an answer.
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

// lapse lets the time pass that a fault takes. It is part of the fault: no test waits for anything with it.
func lapse(d time.Duration) { <-time.After(d) }

// cutLink closes the connections to Redis and refuses new ones.
func (n *node) cutLink() { n.link.cut() }

// silenceLink loses everything, in both directions, and keeps the connections open.
func (n *node) silenceLink() {
	n.link.upwards.Store(&hazard{silent: true})
	n.link.downwards.Store(&hazard{silent: true})
}

// halfOpenLink lets through what the instance sends, and loses what Redis answers.
func (n *node) halfOpenLink() { n.link.downwards.Store(&hazard{silent: true}) }

// delayLink adds a round-trip time to the link.
func (n *node) delayLink(d time.Duration) {
	away := &hazard{delay: d / 2, jitter: d / 8}
	n.link.upwards.Store(away)
	n.link.downwards.Store(away)
}

// narrowLink lets only so many KB a second through to the instance, on each connection.
func (n *node) narrowLink(kilobytes int) {
	n.link.downwards.Store(&hazard{rate: kilobytes << 10})
}

// healLink ends whatever was done to the link.
func (n *node) healLink() {
	n.cluster.t.Helper()
	n.link.heal()
	// for a moment, its port may be taken
	redistest.Eventually(n.cluster.t, "the link to be open", func() (error, bool) {
		err := n.link.open()
		return err, err == nil
	})
}
