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
func (r *Router) Emit(ctx context.Context, emit Emit) (Outcome, error) {
	channel := r.redis.Keys.All()
	if emit.To == presence.Authenticated {
		channel = r.redis.Keys.Authenticated()
	}
	e := envelope{kind: emitKind(emit.To), sender: r.instance, frame: emit.Frame}
	if emit.Wait == Acked {
		e.id = emit.ID
	}
	return r.broadcast(ctx, channel, e, emit.Wait != Routed, func(tally *presence.Tracker) int {
		// also if the caller waits no longer: what our own sockets get must be known, or it may be said that nobody got it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MaxWait)
		defer cancel()
		here := presence.Emit{To: emit.To, Message: presence.Message{Frame: emit.Frame, Tracker: tally}}
		if r.receiver.emitter.finish(ctx, &here) != nil {
			return 0 // or we don't know of any
		}
		return here.Took
	})
}

// KickSocket closes one socket, wherever it is, with closeCode and the reason; the outcome's Sockets.Written says how many there were.
func (r *Router) KickSocket(ctx context.Context, id uuid.UUID, reason string) (Outcome, error) {
	e := envelope{kind: kindKickSocket, sender: r.instance, exclude: id, frame: []byte(reason)}
	return r.broadcast(ctx, r.redis.Keys.All(), e, true, func(tally *presence.Tracker) int {
		return r.sockets.Find(id).Close(uuid.Nil, CloseKicked, reason, tally)
	})
}

// broadcast does something here and has every other instance do it too. wait: until all have told what came of it.
func (r *Router) broadcast(ctx context.Context, channel string, e envelope, wait bool, here func(*presence.Tracker) int) (Outcome, error) {
	var g *gather
	var tally *presence.Tracker
	if wait {
		g = newGather(e.id != uuid.Nil)
		var err error
		if e.ask, err = r.receiver.asks.begin(g.onReply, ""); err != nil {
			return Outcome{}, err
		}
		defer r.receiver.asks.end(e.ask)
		e.within = replyWithin(deadline(ctx))
		tally = presence.NewTracker(e.id, g.onLocal)
	}
	took := make(chan int, 1)
	go func() { took <- here(tally) }() // meanwhile others begin with theirs
	others, err := r.publishToOthers(ctx, channel, e)
	outcome := Outcome{Instances: others + 1}
	if tookHere := <-took; err != nil {
		if tookHere == 0 {
			return Outcome{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		r.log.Warn("emit", "error", err)
		outcome = Outcome{Instances: 1, Partial: true}
	}
	if wait {
		g.onRouted(others, 0)
		g.wait(ctx, tally)
		outcome.Sockets, _ = g.result()
	}
	return outcome, nil
}

// publishToOthers sends an envelope over a channel of all instances and says how many others there are.
func (r *Router) publishToOthers(ctx context.Context, channel string, e envelope) (others int, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.redis.Timeout)
	defer cancel()
	subscribers, err := r.redis.Client.Do(ctx, publish(r.redis, channel, e.append(nil))).AsInt64()
	if err != nil {
		return 0, err
	}
	others = int(subscribers)
	if others > 0 && r.receiver.Hears() {
		others-- // our own subscription, which does not listen to us
	}
	return others, nil
}

// Kick closes the sockets of a user on all instances but one socket (uuid.Nil: but none), and says in the outcome's Sockets.Written how
// many.
func (r *Router) Kick(ctx context.Context, user string, except uuid.UUID, reason string) Outcome {
	kick := Push{User: user, Exclude: except, Frame: []byte(reason), Wait: Written, kick: true}
	return r.Begin([]Push{kick}, deadline(ctx)).Wait(ctx)[0]
}
