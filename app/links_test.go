package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// startLink starts a proxy to Redis that can be cut, delayed and silenced.
func startLink(t *testing.T, upstream string) *toxiproxy.Proxy {
	t.Helper()
	control := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	link := toxiproxy.NewProxy(control, "redis", "127.0.0.1:0", upstream)
	if err := link.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Stop)
	return link
}

// lapse is for the length of a fault, which is part of the fault; nothing is ever awaited with it.
func lapse(d time.Duration) { <-time.After(d) }

// poison changes what the link does, until heal.
func (n *site) poison(kind, stream, attributes string) {
	n.w.t.Helper()
	toxic := fmt.Sprintf(`{"type":%q,"stream":%q,"toxicity":1,"attributes":{%s}}`, kind, stream, attributes)
	if _, err := n.link.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		n.w.t.Fatal(err)
	}
}

// cutLink closes the connections to Redis and refuses new ones.
func (n *site) cutLink() { n.link.Stop() }

// silenceLink lets nothing through, either way.
func (n *site) silenceLink() {
	n.poison("timeout", "upstream", `"timeout":0`)
	n.poison("timeout", "downstream", `"timeout":0`)
}

// halfOpenLink lets through what the instance sends, and not what Redis answers.
func (n *site) halfOpenLink() { n.poison("timeout", "downstream", `"timeout":0`) }

// delayLink makes Redis far away.
func (n *site) delayLink(d time.Duration) {
	latency := fmt.Sprintf(`"latency":%d,"jitter":%d`, d.Milliseconds()/2, d.Milliseconds()/8)
	n.poison("latency", "upstream", latency)
	n.poison("latency", "downstream", latency)
}

// narrowLink lets only so many KB a second through to the instance, on each connection.
func (n *site) narrowLink(kilobytes int) {
	n.poison("bandwidth", "downstream", fmt.Sprintf(`"rate":%d`, kilobytes))
}

// healLink ends all that was done to the link.
func (n *site) healLink() {
	n.w.t.Helper()
	n.link.Toxics.ResetToxics(context.Background())
	eventually(n.w.t, "the link to be open", func() (error, bool) { // its port may be taken for a moment
		err := n.link.Start()
		return err, err == nil || err == toxiproxy.ErrProxyAlreadyStarted
	})
}
