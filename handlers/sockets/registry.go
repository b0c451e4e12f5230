package sockets

import (
	"maps"
	"slices"
	"sync"
)

// registry knows the open sockets of a server, and how many there are.
type registry struct {
	mu sync.Mutex
	// mu guards the following
	count  int  // sockets, with those whose handshake is under way
	closed bool // no more may come
	open   [pingGroups]map[*socket]struct{}
}

// pingGroups is in how many groups sockets are pinged, one group after the other. See Server.Run.
const pingGroups = 64

func newRegistry() *registry {
	r := &registry{}
	for i := range r.open {
		r.open[i] = map[*socket]struct{}{}
	}
	return r
}

// enter makes room for one more socket, from its handshake on, and counts it in running. most is how many
// there may be; 0: any number. Both happen under the lock, so whoever waits for running after close waits for
// nothing new.
func (r *registry) enter(most int, running *sync.WaitGroup) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrDraining
	case most > 0 && r.count >= most:
		return ErrFull
	}
	r.count++
	running.Add(1)
	return nil
}

// leave gives the room of a socket back.
func (r *registry) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count--
}

// close lets no more sockets in.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

func (r *registry) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// number is how many sockets have entered and not left.
func (r *registry) number() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

func (r *registry) add(s *socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[s.pingGroup()][s] = struct{}{}
}

func (r *registry) remove(s *socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open[s.pingGroup()], s)
}

// group returns the open sockets of one group.
func (r *registry) group(i int) []*socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.open[i]))
}

// all returns all open sockets.
func (r *registry) all() (all []*socket) {
	for i := range pingGroups {
		all = append(all, r.group(i)...)
	}
	return all
}

// pingGroup is the group of a socket. The last byte of an id is random, so groups are about equally large.
func (s *socket) pingGroup() int { return int(s.ID[15]) % pingGroups }
