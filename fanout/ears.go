package fanout

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// ear is the subscription of one shard.
type ear struct {
	once       sync.Once // of the first confirmation
	subscribed atomic.Bool
	heard      atomic.Int64 // heartbeats since the last look
	deaf       atomic.Bool  // heartbeats were sent, and none came back
}

// listen subscribes in every shard, with a new client, until that client is of no more use or the context ends.
func (r *Receiver) listen(ctx context.Context) error {
	client, err := r.dial()
	if err != nil {
		return fmt.Errorf("fanout: connect for subscriptions: %w", err)
	}
	running := ctx // an audit goes on when its subscription has ended
	take := func(message rueidis.PubSubMessage) { r.receive(running, message) }
	ctx, cancel := context.WithCancel(ctx)
	var subscriptions sync.WaitGroup
	for shard := range r.ears {
		subscriptions.Go(func() {
			defer cancel()
			r.subscribe(ctx, client, shard, take)
		})
	}
	subscriptions.Go(func() {
		defer cancel()
		r.watch(ctx)
	})
	<-ctx.Done()
	client.Close() // a cancelled context alone would leave the channels subscribed
	subscriptions.Wait()
	return nil
}

// subscribe keeps one shard's subscription until the context ends or the client is of no more use. On a Cluster a client mends itself,
// node by node. Elsewhere there is one connection for all, and a client that speaks RESP2 never replaces it.
func (r *Receiver) subscribe(ctx context.Context, client rueidis.Client, shard int, take func(rueidis.PubSubMessage)) {
	channels := []string{r.keys.Channels(shard) + r.instance}
	if shard == 0 {
		channels = append(channels, r.keys.All(), r.keys.Authenticated())
	}
	command := func() rueidis.Completed { // a built command is good for one use
		if r.sharded {
			return client.B().Ssubscribe().Channel(channels...).Build()
		}
		return client.B().Subscribe().Channel(channels...).Build()
	}
	ear := &r.ears[shard]
	said := "" // why it is not up: logged once, however long it lasts
	for ctx.Err() == nil {
		confirmed := 0
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
			if confirmed++; confirmed == len(channels) {
				r.subscribed(ear)
			}
		})
		err := receiveOn(hooked, client, command, take)
		lost := ear.subscribed.Swap(false)
		if ctx.Err() != nil {
			return
		}
		if why := fmt.Sprint(err); lost || why != said {
			r.log.Warn("subscription lost", "shard", shard, "error", err)
			said = why
		}
		if err != nil { // or else the shard has moved to another node, which is there
			pause(ctx, resubscribe)
		}
		if !r.sharded {
			return
		}
	}
}

// receiveOn subscribes, and receives until that ends. The client of a Cluster learns only within a second that a slot has moved, but the
// node that is asked says at once where to; pushes pass by meanwhile.
func receiveOn(ctx context.Context, client rueidis.Client, command func() rueidis.Completed, take func(rueidis.PubSubMessage)) error {
	err := client.Receive(ctx, command(), take)
	if reply, ok := rueidis.IsRedisErr(err); ok {
		if addr, moved := reply.IsMoved(); moved && client.Nodes()[addr] != nil {
			return client.Nodes()[addr].Receive(ctx, command(), take)
		}
	}
	return err
}

func (r *Receiver) subscribed(ear *ear) {
	ear.subscribed.Store(true)
	ear.once.Do(func() {
		if r.missing.Add(-1) == 0 {
			close(r.ready)
		}
	})
}

// watch returns when a subscription is deaf: the mirror sent heartbeats through its channel, and none came back.
func (r *Receiver) watch(ctx context.Context) {
	looks := time.NewTicker(r.pause)
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
		}
		anyDeaf := false
		for shard := range r.ears {
			ear := &r.ears[shard]
			sent, heard := r.mirror.Heartbeats(shard), ear.heard.Swap(0)
			deaf := sent >= 2 && heard == 0 // one may still be on its way
			ear.deaf.Store(deaf)
			if deaf {
				r.mirror.Remirror(shard)
			}
			anyDeaf = anyDeaf || deaf
		}
		if anyDeaf {
			r.log.Error("deaf, subscribing anew", "trouble", r.NotReadyReason())
			return
		}
	}
}

func (r *Receiver) heartbeat(channel string) {
	for shard := range r.ears {
		if channel == r.keys.Channels(shard)+r.instance {
			r.ears[shard].heard.Add(1)
			r.ears[shard].deaf.Store(false)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
