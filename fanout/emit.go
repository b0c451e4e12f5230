package fanout

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"rollcall/presence"
)

// Emit is a frame for all sockets of an audience.
type Emit struct {
	To    presence.Audience
	Frame []byte // shared until written: nobody may change it

	Wait Wait
	ID   uuid.UUID // of the emit, for clients to confirm; needed for Acked alone
}

// Emit brings a frame to all sockets of an audience, on every instance. The outcome's state means nothing.
func (b *Bus) Emit(ctx context.Context, emit Emit) (Outcome, error) {
	channel, kind := b.redis.Keys.All(), kindEmitAll
	if emit.To == presence.Authenticated {
		channel, kind = b.redis.Keys.Authenticated(), kindEmitAuthenticated
	}
	e := envelope{kind: kind, sender: b.instance, frame: emit.Frame}
	if emit.Wait == Acked {
		e.id = emit.ID
	}
	return b.broadcast(ctx, channel, e, emit.Wait != Routed, func(tracker *presence.Tracker) int {
		// Even if the caller waits no longer: what our own sockets took must be known, or the answer would be
		// that nobody took it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MaxWait)
		defer cancel()
		here := presence.Emit{To: emit.To, Message: presence.Message{Frame: emit.Frame, Tracker: tracker}}
		if b.emitter.deliverAndWait(ctx, &here) != nil {
			return 0
		}
		return here.Took
	})
}

// broadcast has every other instance act on an envelope, and meanwhile calls here, which does the same on
// this one and returns how many sockets took part. If wait is set, it waits for the reports of all instances.
func (b *Bus) broadcast(
	ctx context.Context, channel string, e envelope, wait bool, here func(*presence.Tracker) int,
) (Outcome, error) {
	var reports *collector
	var tracker *presence.Tracker
	if wait {
		var err error
		if reports, err = newCollector(&b.requests, e.id, ""); err != nil {
			return Outcome{}, err
		}
		defer b.requests.remove(reports.number)
		e.request, e.within, tracker = reports.number, reportTime(deadline(ctx)), reports.tracker
	}
	took := make(chan int, 1)
	go func() { took <- here(tracker) }()
	others, err := b.publishToOthers(ctx, channel, e)
	outcome := Outcome{Instances: others + 1}
	if tookHere := <-took; err != nil {
		if tookHere == 0 {
			return Outcome{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		b.log.Warn("emit", "error", err)
		outcome = Outcome{Instances: 1, Partial: true}
	}
	if wait {
		reports.onRouted(others, 0)
		outcome.Sockets, _ = reports.wait(ctx)
	}
	return outcome, nil
}

// publishToOthers sends an envelope through a channel of all instances and returns how many others there are.
func (b *Bus) publishToOthers(ctx context.Context, channel string, e envelope) (others int, err error) {
	subscribers, err := b.redis.Publish(ctx, channel, e.append(nil))
	if err != nil {
		return 0, err
	}
	if subscribers > 0 && b.subscriptions.up() {
		subscribers-- // our own subscription, which ignores what we sent
	}
	return int(subscribers), nil
}

// receiveEmit has the emitter deliver an emit of another instance.
func (b *Bus) receiveEmit(e envelope) {
	if e.sender == b.instance {
		return // delivered when it was sent
	}
	emit := presence.Emit{To: presence.Everybody, Message: presence.Message{Frame: e.frame}}
	if e.kind == kindEmitAuthenticated {
		emit.To = presence.Authenticated
	}
	emit.Tracker = b.newTracker(0, e, e.within)
	if !b.emitter.enqueue(emitJob{emit: &emit}) {
		b.Dropped.Emits.Add(1)
	}
}
