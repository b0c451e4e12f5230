package fanout

import (
	"context"
	"encoding/binary"
	"sync"

	"rollcall/presence"
)

// Wait is what the caller of a push waits for.
type Wait int

const (
	Routed  Wait = iota // which instances took it
	Written             // that each socket got it: its frame was written to the connection
	Acked               // that each client has confirmed it
	Handed              // that owners have handed it to their sockets, whenever these will be written to; of sockets it tells nothing
)

// gather collects what became of one push at all sockets: from the tally of the local ones, and from the replies of other owners.
type gather struct {
	done  chan struct{} // closed when all is known
	acked bool          // what is written counts as unanswered too until it is confirmed

	mu sync.Mutex
	// mu guards the following
	counts  presence.Counts
	local   bool // the local tally is done
	routed  bool // the next two are known
	reached int  // other instances that took it
	sockets int  // which they have, as the routing saw
	replied int  // owners
	strays  int  // of them, those that turned out to have no socket of the user
	told    int  // sockets of which they told
	over    bool
}

// ownerReply is what an owner replied: its counts, or that it turned out to have no socket of the user.
type ownerReply struct {
	counts presence.Counts
	stray  bool
}

func newGather(acked bool) *gather { return &gather{done: make(chan struct{}), acked: acked} }

// onLocal takes the counts of this instance's own sockets.
func (g *gather) onLocal(counts presence.Counts) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.Add(counts)
	g.local = true
	g.checkLocked()
}

// onRouted takes what the routing saw.
func (g *gather) onRouted(reached, sockets int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routed, g.reached, g.sockets = true, reached, sockets
	g.checkLocked()
}

// onReply takes an owner's reply.
func (g *gather) onReply(_ string, frame []byte) {
	r, ok := parseOwnerReply(frame)
	if !ok {
		return // it counts as unanswered
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.Add(r.counts)
	g.replied++
	g.told += r.counts.Written + r.counts.Dropped + r.counts.Gone
	if !g.acked {
		g.told += r.counts.Unanswered
	}
	if r.stray {
		g.strays++
	}
	g.checkLocked()
}

func (g *gather) checkLocked() {
	if g.local && g.routed && g.replied >= g.reached && !g.over {
		g.over = true
		close(g.done)
	}
}

// wait waits until all is known, or the context ends.
func (g *gather) wait(ctx context.Context, local *presence.Tracker) {
	select {
	case <-g.done:
	case <-ctx.Done():
		if local != nil {
			local.Expire()
		}
	}
}

// result is what is known by now, and how many owners turned out to have no socket of the user. What the routing saw and nobody has told
// of is gone if all owners have replied, and else unanswered; each owner that has told of none had one at least.
func (g *gather) result() (counts presence.Counts, strays int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts = g.counts
	silent, untold := g.reached-g.replied, g.sockets-g.told
	switch {
	case silent > 0:
		counts.Gone += g.strays
		counts.Unanswered += max(silent, untold-g.strays)
	case g.strays > 0:
		counts.Gone += max(g.strays, untold)
	}
	return counts, g.strays
}

// append appends the wire form: whether it was a stray, and the counts, as uvarints.
func (r ownerReply) append(b []byte) []byte {
	stray := byte(0)
	if r.stray {
		stray = 1
	}
	b = append(b, stray)
	for _, n := range []int{r.counts.Written, r.counts.Acked, r.counts.Dropped, r.counts.Gone, r.counts.Unanswered} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func parseOwnerReply(frame []byte) (r ownerReply, ok bool) {
	c := cutter{rest: frame}
	r.stray = c.number() == 1
	for _, n := range []*int{&r.counts.Written, &r.counts.Acked, &r.counts.Dropped, &r.counts.Gone, &r.counts.Unanswered} {
		*n = int(c.number() & 0xffffffff)
	}
	return r, !c.failed
}
