package fanout

import (
	"context"
	"slices"
	"sync"
	"time"

	"rollcall/presence"
)

// Ticket is what a caller waits with for the outcomes of its orders.
type Ticket struct {
	orders []order
	only   [1]order  // of who has no more
	until  time.Time // when its caller stops waiting
	began  time.Time
	meter  Meter         // nil: nobody measures
	done   chan struct{} // closed with the last outcome

	mu sync.Mutex
	// mu guards the following
	open int // orders without an outcome
}

// order is one push on its way.
type order struct {
	// static after construction
	push   Push
	ticket *Ticket

	// owned by who enqueues, then by who settles
	local int // sockets of this instance that took it

	inquiry *inquiry // nil if the caller waits for the routing alone

	// guarded by the ticket's mu
	state   orderState
	outcome Outcome
}

// inquiry asks all sockets what became of a push.
type inquiry struct {
	asks   *asks
	number uint64 // of the question
	gather *gather
	tally  *presence.Tracker // of our own sockets; nil: of them nobody wants to hear
}

type orderState int

const (
	queued  orderState = iota
	sent               // Redis may have it: only its answer tells
	settled            // the outcome stands
)

func newTicket(pushes []Push, until time.Time) *Ticket {
	t := &Ticket{until: until, began: time.Now(), done: make(chan struct{}), open: len(pushes)}
	if t.orders = t.only[:]; len(pushes) != len(t.only) {
		t.orders = make([]order, len(pushes))
	}
	for i, push := range pushes {
		t.orders[i] = order{push: push, ticket: t}
	}
	return t
}

// Wait returns the outcomes. When the ticket's time is over or the context ends, what was not sent yet never will be; what was sent is
// still waited for, which ends with the call's own deadline.
func (t *Ticket) Wait(ctx context.Context) []Outcome {
	select {
	case <-t.done:
	default:
		t.waitRouted(ctx)
	}
	outcomes := make([]Outcome, len(t.orders))
	for i := range t.orders {
		o := &t.orders[i]
		if o.inquiry != nil {
			o.inquire(ctx)
		}
		outcomes[i] = o.outcome
		if t.meter != nil {
			t.meter.Push(o.outcome, o.push.Wait, time.Since(t.began))
		}
	}
	return outcomes
}

func (t *Ticket) waitRouted(ctx context.Context) {
	over := time.NewTimer(time.Until(t.until))
	defer over.Stop()
	var err error
	select {
	case <-t.done:
		return
	case <-over.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	for i := range t.orders {
		t.orders[i].settle(queued, Outcome{Err: err}, 0)
	}
	<-t.done
}

// Done says whether all outcomes are there already, so that Wait would not wait.
func (t *Ticket) Done() bool {
	select {
	case <-t.done:
		return !slices.ContainsFunc(t.orders, func(o order) bool { return o.inquiry != nil })
	default:
		return false
	}
}

// claim takes a queued order to be sent; false if its caller has given it up, or waits no longer.
func (o *order) claim(now time.Time) bool {
	if !o.ticket.until.After(now) {
		o.settle(queued, Outcome{Err: context.DeadlineExceeded}, 0)
	}
	o.ticket.mu.Lock()
	defer o.ticket.mu.Unlock()
	if o.state != queued {
		return false
	}
	o.state = sent
	return true
}

// settle gives an order that is in a state its outcome, in which the sockets of this instance count. elsewhere are the user's sockets
// on the other instances that took it.
func (o *order) settle(from orderState, outcome Outcome, elsewhere int) {
	o.ticket.mu.Lock()
	defer o.ticket.mu.Unlock()
	if o.state != from {
		return
	}
	o.state = settled
	if o.inquiry != nil {
		o.inquiry.gather.onRouted(outcome.Instances, elsewhere)
	}
	if o.local > 0 {
		if outcome.Err != nil {
			outcome = Outcome{State: presence.Unknown, Instances: 1, Partial: true}
		} else {
			outcome.State, outcome.Instances = presence.Online, outcome.Instances+1
		}
	}
	o.outcome = outcome
	o.ticket.open--
	if o.ticket.open == 0 {
		close(o.ticket.done)
	}
}
