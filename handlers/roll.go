package handlers

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
)

// roll knows the open sockets. It is striped, so that connects do not wait for each other, nor for a walk over all.
type roll struct {
	seed    maphash.Seed
	stripes *[rollStripes]rollStripe
}

// rollStripes are far more than the cores that could want one at once.
const rollStripes = 64

type rollStripe struct {
	mu sync.RWMutex
	// mu guards the following
	sockets map[*socket]struct{}
}

func newRoll() roll {
	r := roll{seed: maphash.MakeSeed(), stripes: new([rollStripes]rollStripe)}
	for i := range r.stripes {
		r.stripes[i].sockets = map[*socket]struct{}{}
	}
	return r
}

func (r roll) stripeOf(socket *socket) *rollStripe {
	return &r.stripes[maphash.Comparable(r.seed, socket)%uint64(len(r.stripes))]
}

func (r roll) add(socket *socket) {
	stripe := r.stripeOf(socket)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	stripe.sockets[socket] = struct{}{}
}

func (r roll) remove(socket *socket) {
	stripe := r.stripeOf(socket)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	delete(stripe.sockets, socket)
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
	return slices.Collect(maps.Keys(s.sockets))
}
