package fanout

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

// Ticket is what the caller of Begin waits with for the outcomes of its pushes.
type Ticket struct {
	// static after construction
	pushes []pendingPush
	single [1]pendingPush // the memory of pushes if it is only one
	until  time.Time      // when the caller stops waiting
	began  time.Time
	meter  Meter         // nil: nobody measures
	done   chan struct{} // closed when the last push is completed

	mu sync.Mutex
	// mu guards the following, and the state and the outcome of each push
	open int // pushes that are not completed
}

// pendingPush is a push on its way through Redis.
type pendingPush struct {
	// static after construction
	push   Push
	ticket *Ticket

	// written before the push is queued, read after it was taken from the queue
	local     int        // how many sockets of this instance took it
	collector *collector // of delivery reports; nil if the caller waits for the routing alone

	// guarded by the ticket's mu
	state   pushState
	outcome Outcome
}

type pushState int

const (
	waiting   pushState = iota // not sent yet: it can be given up
	sent                       // in a call of push.lua: only its answer tells whether it had an effect
	completed                  // its outcome is final, except for what the collector adds
)

func newTicket(pushes []Push, until time.Time, meter Meter) *Ticket {
	t := &Ticket{until: until, began: time.Now(), meter: meter, done: make(chan struct{}), open: len(pushes)}
	if t.pushes = t.single[:]; len(pushes) != len(t.single) {
		t.pushes = make([]pendingPush, len(pushes))
	}
	for i, push := range pushes {
		t.pushes[i] = pendingPush{push: push, ticket: t}
	}
	return t
}

// Wait returns the outcomes, in the order of the pushes. When the ticket's time is over or the context ends,
// pushes that were not sent yet are given up. The answer to those that were sent is still waited for: the
// call has a deadline of its own, presence.Redis.Timeout.
func (t *Ticket) Wait(ctx context.Context) []Outcome {
	t.waitRouted(ctx)
	if t.wantsReports() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t.until)
		defer cancel()
	}
	outcomes := make([]Outcome, len(t.pushes))
	for i := range t.pushes {
		p := &t.pushes[i]
		if p.collector != nil {
			p.outcome.addReports(p.collector.wait(ctx))
		}
		outcomes[i] = p.outcome
		if t.meter != nil {
			t.meter.Push(p.outcome, p.push.Wait, time.Since(t.began))
		}
	}
	return outcomes
}

// waitRouted has no timer for the ticket's own time. A timer for each push costs 0.95 µs of CPU, a fifth of
// what BenchmarkBus measures for a push; the one timer of the shardRouter, which looks at the time of what is
// queued, costs nothing measurable. So Wait needs a Bus that runs.
func (t *Ticket) waitRouted(ctx context.Context) {
	select {
	case <-t.done:
		return
	case <-ctx.Done():
	}
	for i := range t.pushes {
		t.pushes[i].complete(waiting, Outcome{Err: context.Cause(ctx)}, 0)
	}
	<-t.done
}

func (t *Ticket) wantsReports() bool {
	for i := range t.pushes {
		if t.pushes[i].collector != nil {
			return true
		}
	}
	return false
}

// Done reports whether Wait would return at once.
func (t *Ticket) Done() bool {
	select {
	case <-t.done:
		return !t.wantsReports()
	default:
		return false
	}
}

// markSent marks a waiting push as sent. It returns false if the push was given up, or its caller's time is
// over.
func (p *pendingPush) markSent(now time.Time) bool {
	p.giveUpIfLate(now)
	p.ticket.mu.Lock()
	defer p.ticket.mu.Unlock()
	if p.state != waiting {
		return false
	}
	p.state = sent
	return true
}

// giveUpIfLate gives up a waiting push whose caller's time is over.
func (p *pendingPush) giveUpIfLate(now time.Time) {
	if !p.ticket.until.After(now) {
		p.complete(waiting, Outcome{Err: context.DeadlineExceeded}, 0)
	}
}

// complete gives a push its outcome, if it is in the state from, and adds the sockets of this instance to it.
// routed is what push.lua answered of other instances; reached says how many sockets of the user these have.
func (p *pendingPush) complete(from pushState, routed Outcome, reached int) {
	p.ticket.mu.Lock()
	defer p.ticket.mu.Unlock()
	if p.state != from {
		return
	}
	p.state = completed
	if p.collector != nil {
		p.collector.onRouted(routed.Instances, reached)
	}
	p.outcome = routed.withLocal(p.local)
	p.ticket.open--
	if p.ticket.open == 0 {
		close(p.ticket.done)
	}
}

// withLocal adds this instance to an outcome if some of its sockets took the push.
func (o Outcome) withLocal(sockets int) Outcome {
	switch {
	case sockets == 0:
	case o.Err != nil:
		o = Outcome{State: presence.Unknown, Instances: 1, Partial: true}
	default:
		o.State = presence.Online
		o.Instances++
	}
	return o
}

// addReports adds what the owners have reported. absent of them had no socket of the user any more.
func (o *Outcome) addReports(counts presence.Counts, absent int) {
	o.Sockets = counts
	if o.Err == nil && !o.Partial {
		o.Instances -= absent
	}
}

// tracker counts what becomes of the push at our own sockets; nil if nobody wants to know.
func (p *pendingPush) tracker() *presence.Tracker {
	if p.collector == nil {
		return nil
	}
	return p.collector.tracker
}

// ackedID is the id that clients must confirm; uuid.Nil if they need not.
func (p *pendingPush) ackedID() uuid.UUID {
	if p.push.Wait == Acked {
		return p.push.ID
	}
	return uuid.Nil
}
