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
	index int // in the heap; -1: it is not there any more. Guarded by the graces' mu
}

// graces are the graces of all local users that are not over. A user has at most one. One timer serves all.
type graces struct {
	sooner chan struct{} // a new grace ends before all others. Capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	running graceHeap
}

func (g *graces) begin(user string, began, ends time.Time) *grace {
	begun := &grace{user: user, began: began, ends: ends}
	g.mu.Lock()
	defer g.mu.Unlock()
	if heap.Push(&g.running, begun); begun.index == 0 {
		select {
		case g.sooner <- struct{}{}:
		default:
		}
	}
	return begun
}

// end ends a grace before its time; nil: there is none.
func (g *graces) end(early *grace) {
	if early == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if early.index >= 0 {
		heap.Remove(&g.running, early.index)
	}
}

// takeEnded removes the graces that are over, and returns when the next one will be; zero: none runs.
func (g *graces) takeEnded(now time.Time) (ended []*grace, next time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.running) > 0 && !g.running[0].ends.After(now) {
		ended = append(ended, heap.Pop(&g.running).(*grace))
	}
	if len(g.running) == 0 {
		g.running = nil // a slice keeps the size that it had once
		return ended, time.Time{}
	}
	return ended, g.running[0].ends
}

// endGraces forgets users whose grace is over, until the context ends.
func (s *Sockets) endGraces(ctx context.Context) {
	for {
		ended, next := s.graces.takeEnded(time.Now())
		for _, g := range ended {
			s.endGrace(g)
		}
		var due <-chan time.Time
		if !next.IsZero() {
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

// leaveLocked begins the grace of a user whose last socket that counted went. If the client closed it on
// purpose, there is a grace only until the shortest stay is over.
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

// endGrace forgets a user whose grace is over, unless a socket came meanwhile.
func (s *Sockets) endGrace(ended *grace) {
	stripe := s.stripeOf(ended.user, uuid.Nil)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	local := stripe.users[ended.user]
	if local == nil || local.grace != ended {
		return
	}
	local.grace, local.gone = nil, true
	if len(local.sockets) == 0 {
		delete(stripe.users, ended.user)
	}
	s.onChange(countChange{user: ended.user, at: ended.began})
}

// graceHeap has the grace that ends first at its top. It is a heap.Interface.
type graceHeap []*grace

func (h graceHeap) Len() int           { return len(h) }
func (h graceHeap) Less(i, j int) bool { return h[i].ends.Before(h[j].ends) }

func (h graceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *graceHeap) Push(added any) {
	added.(*grace).index = len(*h)
	*h = append(*h, added.(*grace))
}

func (h *graceHeap) Pop() any {
	last := len(*h) - 1
	popped := (*h)[last]
	popped.index = -1
	(*h)[last] = nil // or the slice would keep it alive
	*h = (*h)[:last]
	return popped
}
