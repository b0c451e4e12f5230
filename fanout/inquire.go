package fanout

import (
	"context"

	"rollcall/presence"
)

// ask starts to ask what becomes of an order.
func (l *lane) ask(o *order) error {
	if o.push.Wait == Routed {
		return nil
	}
	asker := ""
	if o.push.FromClient {
		asker = o.push.User
	}
	g := newGather(o.push.Wait == Acked)
	asks := &l.router.receiver.asks
	number, err := asks.begin(g.onReply, asker)
	if err != nil {
		return err
	}
	o.inquiry = &inquiry{asks: asks, number: number, gather: g}
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

// inquire waits until it is known what became of a routed order, or the context ends, and puts it into the outcome.
func (o *order) inquire(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, o.ticket.until)
	defer cancel()
	i := o.inquiry
	defer i.asks.end(i.number)
	i.gather.wait(ctx, i.tally)
	counts, strays := i.gather.result()
	o.outcome.Sockets = counts
	if o.outcome.Err == nil && !o.outcome.Partial {
		o.outcome.Instances -= strays
	}
}
