package fanout

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

// report is what an instance replies about a push, an emit or a kick: what became of it at its sockets.
type report struct {
	counts presence.Counts
	absent bool // the instance was sent a push for a user who has no socket there any more
}

// append appends the wire form, which is the frame of the reply: 1 if absent, else 0, and then the counts.
// All are uvarints.
func (r report) append(b []byte) []byte {
	absent := byte(0)
	if r.absent {
		absent = 1
	}
	b = append(b, absent)
	for _, n := range r.fields() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	return b
}

// fields are the counts in their order on the wire.
func (r *report) fields() [5]*int {
	c := &r.counts
	return [...]*int{&c.Written, &c.Acked, &c.Dropped, &c.Gone, &c.Unanswered}
}

func parseReport(frame []byte) (r report, ok bool) {
	c := cutter{rest: frame}
	r.absent = c.number() == 1
	for _, n := range r.fields() {
		*n = int(c.number() & 0xffffffff)
	}
	return r, !c.failed
}

// reportTime is how long another instance may collect its report, so that it comes in time: the reply itself
// takes time too.
func reportTime(until time.Time) time.Duration { return max(time.Until(until)*9/10, time.Millisecond) }

// collector collects the delivery reports of one push, emit or kick: from the tracker of the local sockets,
// and from the other instances that took it.
type collector struct {
	// static after construction
	requests *pendingRequests
	number   uint64            // of the request for reports
	tracker  *presence.Tracker // of the local sockets; nil: what becomes of it there is not counted
	acked    bool              // a socket written to also counts as unanswered until its client confirms
	done     chan struct{}     // closed when all reports are there

	mu sync.Mutex
	// mu guards the following
	counts   presence.Counts
	local    bool // the local sockets are counted
	routed   bool // the next two are known
	owners   int  // other instances that took it
	sockets  int  // how many sockets of the user these have, as push.lua saw it
	reported int  // owners that have reported
	absent   int  // of these, owners that have no socket of the user any more
	known    int  // sockets whose result these have reported
}

// newCollector registers a request for reports. id is what clients must confirm; uuid.Nil if they need not.
// user is the user whose client has caused it; empty if a backend has. The caller must call wait, or remove
// the request.
func newCollector(requests *pendingRequests, id uuid.UUID, user string) (*collector, error) {
	c := &collector{requests: requests, acked: id != uuid.Nil, done: make(chan struct{})}
	c.tracker = presence.NewTracker(id, c.onLocal)
	var err error
	c.number, err = requests.register(c.onReply, user)
	return c, err
}

// collectReports gives a push its collector, if its caller waits for more than the routing.
func (b *Bus) collectReports(p *pendingPush) error {
	if p.push.Wait == Routed {
		return nil
	}
	user := ""
	if p.push.FromClient {
		user = p.push.User
	}
	c, err := newCollector(&b.requests, p.ackedID(), user)
	if err != nil {
		return err
	}
	if p.push.Wait == Handed {
		c.tracker = nil
	}
	p.collector = c
	return nil
}

// onLocal takes the counts of this instance's own sockets.
func (c *collector) onLocal(counts presence.Counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Add(counts)
	c.local = true
	c.closeIfDoneLocked()
}

// onRouted takes what push.lua saw of other instances.
func (c *collector) onRouted(owners, sockets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routed, c.owners, c.sockets = true, owners, sockets
	c.closeIfDoneLocked()
}

// onReply takes the report of an owner. One that cannot be read counts as unanswered.
func (c *collector) onReply(reply envelope) {
	r, ok := parseReport(reply.frame)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Add(r.counts)
	c.reported++
	if r.absent {
		c.absent++
	}
	c.known += r.counts.Written + r.counts.Dropped + r.counts.Gone
	if !c.acked { // else each unanswered one is among those written
		c.known += r.counts.Unanswered
	}
	c.closeIfDoneLocked()
}

func (c *collector) closeIfDoneLocked() {
	if !c.local || !c.routed || c.reported < c.owners {
		return
	}
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

// wait waits until all reports are there, or the context ends, and returns the counts and how many owners
// have no socket of the user any more.
func (c *collector) wait(ctx context.Context) (counts presence.Counts, absent int) {
	defer c.requests.remove(c.number)
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.tracker != nil {
			c.tracker.Expire()
		}
	}
	return c.result()
}

// result counts what is known by now. push.lua may have seen more sockets than the owners have reported.
// While some owners are silent, the missing sockets count as unanswered, at least one for each silent owner.
// If all owners have reported, the missing ones were at absent owners: they count as gone, at least one for
// each.
func (c *collector) result() (counts presence.Counts, absent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts = c.counts
	silent, missing := c.owners-c.reported, c.sockets-c.known
	switch {
	case silent > 0:
		counts.Gone += c.absent
		counts.Unanswered += max(silent, missing-c.absent)
	case c.absent > 0:
		counts.Gone += max(c.absent, missing)
	}
	return counts, c.absent
}
