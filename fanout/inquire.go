package fanout

import (
	"context"
	"errors"

	"rollcall/presence"
)

// beginLocked starts to ask what becomes of an order.
func (l *lane) beginLocked(o *order) error {
	if o.push.Wait == Routed {
		return nil
	}
	if w := l.watched[o.push.User]; o.push.FromClient && w != nil && w.orders >= userAsks {
		return ErrAsking
	}
	g := newGather(o.push.Wait == Acked)
	ask, err := l.router.receiver.asks.begin(g.onReply, o.push.FromClient)
	if err != nil {
		return err
	}
	o.inquiry = &inquiry{lane: l, ask: ask, gather: g}
	if o.push.Wait != Handed {
		o.inquiry.tally = presence.NewTracker(o.ackedID(), g.onLocal)
	}
	return nil
}

// tally is that of the order's local sockets; nil if nobody wants to know what becomes of it there.
func (o *order) tally() *presence.Tracker {
	if o.inquiry == nil {
		return nil
	}
	return o.inquiry.tally
}

// inquire waits until it is known what became of a routed order, or the context ends, and puts it into the outcome. Owners that
// turned out to have no socket of the user are the wrong door: then it looks once more where the user is.
func (o *order) inquire(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, o.ticket.until)
	defer cancel()
	i := o.inquiry
	defer i.lane.forget(o)
	i.gather.wait(ctx, i.tally)
	counts, replies := i.gather.result()
	o.outcome.Sockets = counts
	if o.outcome.Err != nil || o.outcome.Partial {
		return // Redis did not say who was asked: others may have it already
	}
	var asked []string
	strays := 0
	for _, r := range replies {
		asked = append(asked, r.instance)
		if r.stray {
			strays++
		}
	}
	o.outcome.Instances -= strays
	if strays > 0 && !o.repeat && ctx.Err() == nil {
		o.lookAgain(ctx, asked)
	}
}

// lookAgain tries once more, with other owners than were asked before, and adds what came of that to the outcome.
func (o *order) lookAgain(ctx context.Context, asked []string) {
	again := newTicket([]Push{o.push}, o.ticket.until)
	again.orders[0].skip, again.orders[0].repeat = asked, true
	if !o.inquiry.lane.enqueueAgain(&again.orders[0], o) {
		return
	}
	second := again.Wait(ctx)[0]
	o.outcome.Sockets.Add(second.Sockets)
	o.outcome.Instances += second.Instances
	switch {
	case second.Err == nil:
		o.outcome.State = second.State
	case !errors.Is(second.Err, ErrUnreachable): // it was not sent, so what the first look found stands
	case o.outcome.Instances == 0:
		o.outcome = Outcome{Err: second.Err}
	default:
		o.outcome.Partial = true
	}
}

// forget ends an inquiry.
func (l *lane) forget(o *order) {
	l.router.receiver.asks.end(o.inquiry.ask)
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.watched[o.push.User]; w != nil {
		if w.orders--; w.orders == 0 {
			delete(l.watched, o.push.User)
		}
	}
}

// enqueueAgain queues a second attempt at an order, unless a later push for the same user was taken meanwhile: it must not come before.
func (l *lane) enqueueAgain(again, first *order) bool {
	user := l.takeTurn(first.push.User)
	defer l.endTurn(user)
	if !l.isLast(first) {
		return false
	}
	l.enqueueInTurn(again, first.local > 0)
	return true
}

// isLast says whether no later push for the same user was taken.
func (l *lane) isLast(o *order) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.watched[o.push.User]
	return w != nil && w.last == o.number
}

// watch is about a user some of whose pushes may have to be tried again.
type watch struct {
	last   uint64 // the number of the last order taken for this user
	orders int    // with an inquiry
}

// numberLocked numbers an order, and notes it if an earlier one may have to be tried again.
func (l *lane) numberLocked(o *order) {
	l.numbers++
	o.number = l.numbers
	w := l.watched[o.push.User]
	if o.inquiry != nil {
		if w == nil {
			w = &watch{}
			l.watched[o.push.User] = w
		}
		w.orders++
	}
	if w != nil {
		w.last = o.number
	}
}
