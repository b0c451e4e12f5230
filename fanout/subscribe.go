package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

const (
	resubscribe = 50 * time.Millisecond  // before a lost subscription is tried again; it misses what is sent
	redial      = 250 * time.Millisecond // before Redis is tried again when it is out of reach
)

// subscriptions receive from the channels of this instance, one subscription for each shard, and make them
// anew when they are lost. A subscription can also fall silent while it seems to be up. Each renewal of a
// lease publishes a heartbeat through the same channel, so silence is noticed.
type subscriptions struct {
	// static after construction
	instance string
	keys     presence.Keys
	sharded  bool // SSUBSCRIBE, for a Cluster
	mirror   *presence.Mirror
	dial     func() (rueidis.Client, error)
	log      *slog.Logger
	period   time.Duration // between looks at the heartbeats: several are sent in it
	receive  func(context.Context, rueidis.PubSubMessage)
	shards   []subscription

	missing atomic.Int64  // shards never subscribed yet
	ready   chan struct{} // closed when there are none
}

type subscription struct {
	first      sync.Once // confirmation
	subscribed atomic.Bool
	beats      atomic.Int64 // heartbeats since the last look
	silent     atomic.Bool  // heartbeats were sent, and none came back
}

func newSubscriptions(o Options, receive func(context.Context, rueidis.PubSubMessage)) *subscriptions {
	s := &subscriptions{
		instance: o.Instance, keys: o.Redis.Keys, sharded: o.Redis.Sharded, mirror: o.Mirror, dial: o.Dial,
		log: o.Log, period: 3 * o.Redis.RenewEvery(), receive: receive,
		shards: make([]subscription, o.Redis.Keys.Shards()), ready: make(chan struct{}),
	}
	s.missing.Store(int64(len(s.shards)))
	return s
}

// up reports whether the subscription to emits is up.
func (s *subscriptions) up() bool { return s.shards[0].subscribed.Load() }

func (s *subscriptions) notReadyReason() string {
	for shard := range s.shards {
		switch sub := &s.shards[shard]; {
		case sub.silent.Load():
			return fmt.Sprintf("deaf: its heartbeat does not come back through its own channel in shard %d",
				shard)
		case !sub.subscribed.Load() && s.mirror.LeaseTrusted(shard):
			return fmt.Sprintf("not subscribed to its own channel in shard %d", shard)
		}
	}
	return ""
}

// run receives until the context ends.
func (s *subscriptions) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.listen(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("subscribe", "error", err)
			pause(ctx, redial)
		}
	}
}

// listen subscribes in every shard with a new client, until that client is of no more use or the context
// ends.
func (s *subscriptions) listen(ctx context.Context) error {
	client, err := s.dial()
	if err != nil {
		return fmt.Errorf("fanout: connect for subscriptions: %w", err)
	}
	running := ctx // an audit goes on when its subscription has ended
	take := func(message rueidis.PubSubMessage) { s.onMessage(running, message) }
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	for shard := range s.shards {
		loops.Go(func() {
			defer cancel()
			s.subscribe(ctx, client, shard, take)
		})
	}
	loops.Go(func() {
		defer cancel()
		s.watch(ctx)
	})
	<-ctx.Done()
	client.Close() // a cancelled context alone would leave the channels subscribed
	loops.Wait()
	return nil
}

// subscribe keeps one shard's subscription until the context ends or the client is of no more use. On a
// Cluster a client repairs itself, node by node. Elsewhere there is one connection for all shards, and a
// client that speaks RESP2 never replaces it.
func (s *subscriptions) subscribe(
	ctx context.Context, client rueidis.Client, shard int, take func(rueidis.PubSubMessage),
) {
	sub, channels := &s.shards[shard], []string{s.channel(shard)}
	if shard == 0 {
		channels = append(channels, s.keys.All(), s.keys.Authenticated())
	}
	logged := "" // why it is not up: logged once, however long it lasts
	for ctx.Err() == nil {
		confirmed := 0
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) {
			if confirmed++; confirmed == len(channels) {
				s.confirm(sub)
			}
		})
		command := func() rueidis.Completed { return s.command(client, channels) }
		err := receiveFrom(hooked, client, command, take)
		lost := sub.subscribed.Swap(false)
		if ctx.Err() != nil {
			return
		}
		if why := fmt.Sprint(err); lost || why != logged {
			s.log.Warn("subscription lost", "shard", shard, "error", err)
			logged = why
		}
		if err != nil { // without an error the shard has moved to another node, which is up
			pause(ctx, resubscribe)
		}
		if !s.sharded {
			return
		}
	}
}

// command subscribes to channels. A built command can be used once.
func (s *subscriptions) command(client rueidis.Client, channels []string) rueidis.Completed {
	if s.sharded {
		return client.B().Ssubscribe().Channel(channels...).Build()
	}
	return client.B().Subscribe().Channel(channels...).Build()
}

// receiveFrom subscribes, and receives until that ends. When a slot of a Cluster moves, its client learns of
// it only within a second, and pushes pass by meanwhile. But the node that is asked says at once where the
// slot is.
func receiveFrom(
	ctx context.Context, client rueidis.Client,
	command func() rueidis.Completed, take func(rueidis.PubSubMessage),
) error {
	err := client.Receive(ctx, command(), take)
	if reply, ok := rueidis.IsRedisErr(err); ok {
		if addr, moved := reply.IsMoved(); moved && client.Nodes()[addr] != nil {
			return client.Nodes()[addr].Receive(ctx, command(), take)
		}
	}
	return err
}

func (s *subscriptions) confirm(sub *subscription) {
	sub.subscribed.Store(true)
	sub.first.Do(func() {
		if s.missing.Add(-1) == 0 {
			close(s.ready)
		}
	})
}

// onMessage notes heartbeats here, on the subscription's own goroutine, whatever waits for sockets.
func (s *subscriptions) onMessage(ctx context.Context, message rueidis.PubSubMessage) {
	if message.Message != presence.Heartbeat {
		s.receive(ctx, message)
		return
	}
	for shard := range s.shards {
		if message.Channel == s.channel(shard) {
			s.shards[shard].beats.Add(1)
			s.shards[shard].silent.Store(false)
		}
	}
}

// watch returns when a subscription is silent: the mirror sent heartbeats through its channel, and none came
// back.
func (s *subscriptions) watch(ctx context.Context) {
	looks := time.NewTicker(s.period)
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
		}
		if s.findSilent() {
			s.log.Error("deaf, subscribing anew", "reason", s.notReadyReason())
			return
		}
	}
}

func (s *subscriptions) findSilent() (found bool) {
	for shard := range s.shards {
		sub := &s.shards[shard]
		sent, came := s.mirror.Heartbeats(shard), sub.beats.Swap(0)
		silent := sent >= 2 && came == 0 // one may still be on its way
		sub.silent.Store(silent)
		if silent {
			s.mirror.Remirror(shard)
		}
		found = found || silent
	}
	return found
}

// channel is this instance's own in a shard.
func (s *subscriptions) channel(shard int) string { return s.keys.Channels(shard) + s.instance }
