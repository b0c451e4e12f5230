package handlers

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/olahol/melody"
)

// roll knows the open sockets by their Melody sessions. It is striped, so that connects and messages do not wait for each other. A
// session's own keys would do the same, for ten times the memory.
type roll struct {
	seed    maphash.Seed
	stripes *[rollStripes]rollStripe
}

// rollStripes are far more than the cores that could want one at once.
const rollStripes = 64

type rollStripe struct {
	mu sync.RWMutex
	// mu guards the following
	sockets map[*melody.Session]*socket
}

func newRoll() roll {
	r := roll{seed: maphash.MakeSeed(), stripes: new([rollStripes]rollStripe)}
	for i := range r.stripes {
		r.stripes[i].sockets = map[*melody.Session]*socket{}
	}
	return r
}

func (r roll) stripeOf(session *melody.Session) *rollStripe {
	return &r.stripes[maphash.Comparable(r.seed, session)%uint64(len(r.stripes))]
}

func (r roll) add(session *melody.Session, socket *socket) {
	stripe := r.stripeOf(session)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	stripe.sockets[session] = socket
}

func (r roll) remove(session *melody.Session) {
	stripe := r.stripeOf(session)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	delete(stripe.sockets, session)
}

// of finds the socket of a session; only for the reader's goroutine, during whose life it is there.
func (r roll) of(session *melody.Session) *socket {
	stripe := r.stripeOf(session)
	stripe.mu.RLock()
	defer stripe.mu.RUnlock()
	return stripe.sockets[session]
}

func (r roll) all() []*socket {
	var all []*socket
	for i := range r.stripes {
		all = append(all, r.stripes[i].all()...)
	}
	return all
}

func (s *rollStripe) all() []*socket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.sockets))
}
