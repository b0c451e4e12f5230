package main

import (
	"time"

	"rollcall/lua/redistest"
)

// lapse is for the length of a fault, which is part of the fault; nothing is ever awaited with it.
func lapse(d time.Duration) { <-time.After(d) }

// cutLink closes the connections to Redis and refuses new ones.
func (n *node) cutLink() { n.link.cut() }

// silenceLink lets nothing through, either way.
func (n *node) silenceLink() {
	n.link.upwards.Store(&hazard{silent: true})
	n.link.downwards.Store(&hazard{silent: true})
}

// halfOpenLink lets through what the instance sends, and not what Redis answers.
func (n *node) halfOpenLink() { n.link.downwards.Store(&hazard{silent: true}) }

// delayLink makes Redis far away.
func (n *node) delayLink(d time.Duration) {
	away := &hazard{delay: d / 2, jitter: d / 8}
	n.link.upwards.Store(away)
	n.link.downwards.Store(away)
}

// narrowLink lets only so many KB a second through to the instance, on each connection.
func (n *node) narrowLink(kilobytes int) {
	n.link.downwards.Store(&hazard{rate: kilobytes << 10})
}

// healLink ends all that was done to the link.
func (n *node) healLink() {
	n.cluster.t.Helper()
	n.link.heal()
	redistest.Eventually(n.cluster.t, "the link to be open", func() (error, bool) { // its port may be taken for a moment
		err := n.link.open()
		return err, err == nil
	})
}
