package fanout

import "sync"

// maxSenders is of how many senders, in one shard each, the last call is remembered. At the cap all are forgotten, and until they are
// heard of again what is late is not noticed.
const maxSenders = 1 << 16

// calls tells which messages come after their successors. A call of Redis that was given up may get there later, through a connection
// that is closed here and still open there, when newer pushes for the same users have come. Each subscription asks for itself.
type calls struct {
	mu sync.Mutex
	// mu guards the following
	last map[sender]uint64 // number of the last call whose message came
}

type sender struct{ instance, channel string }

// isLate notes the call of a message that came through a channel, unless a later one came before.
func (c *calls) isLate(channel string, call envelope) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := sender{call.sender, channel}
	last, known := c.last[from]
	if known && call.ask <= last {
		return true
	}
	if c.last == nil || !known && len(c.last) >= maxSenders {
		c.last = map[sender]uint64{}
	}
	c.last[from] = call.ask
	return false
}
