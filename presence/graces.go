package presence

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
)

// grace is the time that a user without sockets has to come back.
type grace struct {
	user  string
	began time.Time // when the last socket went
	ends  time.Time
	place int // in the heap; -1: it is not there any more. Guarded by the graces' mu
}

// graces are the running ones. A user has at most one, and it costs no timer.
type graces struct {
	sooner chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	first graceHeap
}

// begin begins a grace.
func (g *graces) begin(user string, began, ends time.Time) *grace {
	one := &grace{user: user, began: began, ends: ends}
	g.mu.Lock()
	defer g.mu.Unlock()
	if heap.Push(&g.first, one); one.place == 0 {
		select {
		case g.sooner <- struct{}{}:
		default:
		}
	}
	return one
}

// end ends a grace before its time; nil is none.
func (g *graces) end(one *grace) {
	if one == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if one.place >= 0 {
		heap.Remove(&g.first, one.place)
	}
}

// take removes the graces that are over and says when the next one will be, if there is one.
func (g *graces) take(now time.Time) (over []*grace, next time.Time, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.first) > 0 && !g.first[0].ends.After(now) {
		over = append(over, heap.Pop(&g.first).(*grace))
	}
	if len(g.first) == 0 {
		g.first = nil // a slice keeps the size that it had once
		return over, time.Time{}, false
	}
	return over, g.first[0].ends, true
}

// EndGraces forgets users whose grace is over, until the context ends.
func (s *Sockets) EndGraces(ctx context.Context) {
	for {
		over, next, more := s.graces.take(time.Now())
		for _, one := range over {
			s.endGrace(one)
		}
		var due <-chan time.Time
		if more {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-due:
		case <-s.graces.sooner:
		}
	}
}

// leaveLocked begins the grace of a user whose last socket that counted went, or ends it if the client said
// that it will not be back.
func (s *Sockets) leaveLocked(user string, local *localUser, now time.Time, onPurpose bool) {
	if local.gone {
		return
	}
	ends := now
	if !onPurpose {
		ends = now.Add(s.grace)
	}
	if soonest := local.came.Add(s.minStay); ends.Before(soonest) {
		ends = soonest
	}
	s.graces.end(local.grace)
	if local.grace = nil; ends.After(now) {
		local.grace = s.graces.begin(user, now, ends)
	} else {
		local.gone = true
	}
}

// endGrace forgets a user whose grace is over, unless there was a socket since.
func (s *Sockets) endGrace(over *grace) {
	stripe := s.stripeOf(over.user, uuid.Nil)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	local := stripe.users[over.user]
	if local == nil || local.grace != over {
		return
	}
	local.grace, local.gone = nil, true
	if len(local.sockets) == 0 {
		delete(stripe.users, over.user)
	}
	s.changed(over.user, false, false, over.began)
}

// graceHeap has the grace that ends first at its top. It is a heap.Interface.
type graceHeap []*grace

func (h graceHeap) Len() int           { return len(h) }
func (h graceHeap) Less(i, j int) bool { return h[i].ends.Before(h[j].ends) }

func (h graceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *graceHeap) Push(one any) {
	one.(*grace).place = len(*h)
	*h = append(*h, one.(*grace))
}

func (h *graceHeap) Pop() any {
	last := len(*h) - 1
	one := (*h)[last]
	one.place = -1
	(*h)[last] = nil // lets go of the name
	*h = (*h)[:last]
	return one
}
