package presence

import (
	"context"
	"sync"
	"time"
)

// grace is the time a user who dropped has to come back.
type grace struct {
	user  string
	began time.Time
}

// graces are the running ones, first to end first: all have the same length, so a queue is enough and no user costs a timer. It
// holds at most one for each drop within one length.
type graces struct {
	length time.Duration // static
	added  chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	queue []grace
}

func (g *graces) add(one grace) {
	g.mu.Lock()
	g.queue = append(g.queue, one)
	g.mu.Unlock()
	select {
	case g.added <- struct{}{}:
	default:
	}
}

// take removes the graces that are over and says when the next one will be, if there is one.
func (g *graces) take(now time.Time) (over []grace, next time.Time, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ended := 0
	for ended < len(g.queue) && now.Sub(g.queue[ended].began) >= g.length {
		ended++
	}
	over = append(over, g.queue[:ended]...)
	clear(g.queue[:ended]) // lets go of the names
	g.queue = g.queue[ended:]
	if len(g.queue) == 0 {
		g.queue = nil
		return over, time.Time{}, false
	}
	return over, g.queue[0].began.Add(g.length), true
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
		case <-s.graces.added:
			if more {
				continue // the first to end is still the first: only a wait for nothing needs the signal
			}
		}
	}
}
