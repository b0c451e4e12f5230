package fanout

import "sync"

// maxSenders is how many senders, each in one shard, are remembered. At the cap all are forgotten. Until a
// sender is heard again, a late batch of it is not noticed.
const maxSenders = 1 << 16

// sequenceGuard finds batches that come after a later batch of the same sender. That happens: a call of
// push.lua that was given up here may still be on its way through a connection that Redis has not closed yet,
// and arrive when newer pushes for the same users have. To deliver it would break their order. Senders number
// their batches in each shard.
type sequenceGuard struct {
	mu sync.Mutex
	// mu guards the following
	last map[sender]uint64 // number of the last batch
}

type sender struct{ instance, channel string } // a channel belongs to one shard

// isSuperseded remembers a batch that came through a channel, and reports whether a later one, or the same,
// came before it.
func (g *sequenceGuard) isSuperseded(channel, instance string, batch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := sender{instance, channel}
	last, found := g.last[from]
	if found && batch <= last {
		return true
	}
	if g.last == nil || !found && len(g.last) >= maxSenders {
		g.last = map[sender]uint64{}
	}
	g.last[from] = batch
	return false
}
