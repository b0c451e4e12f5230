package fanout

import (
	"context"
	"fmt"
	"sync/atomic"
)

// Barrier waits until everything that others sent to this instance before the call is handed to sockets, or
// the context ends. It sends a message to itself in every shard, behind theirs.
func (b *Bus) Barrier(ctx context.Context) error {
	shards := b.redis.Keys.Shards()
	number, arrived, err := b.requests.registerChan(shards)
	if err != nil {
		return err
	}
	defer b.requests.remove(number)
	message := envelope{kind: kindReply, request: number, sender: b.instance}.append(nil)
	for shard := range shards {
		if _, err := b.redis.Publish(ctx, b.redis.Keys.Channels(shard)+b.instance, message); err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	for range shards {
		if err := await(ctx, arrived); err != nil {
			return err
		}
	}
	// Everything has arrived. The emitter comes first, because it hands kicks of one socket on to the
	// workers.
	if err := b.emitter.deliverAndWait(ctx, nil); err != nil {
		return err
	}
	return await(ctx, newMark(b.workers).passed)
}

func await[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fanout: barrier: %w", context.Cause(ctx))
	}
}

// mark is set behind everything that waits for workers at that moment. It is passed when all of that is done.
type mark struct {
	open   atomic.Int64  // users who have it in their queue
	passed chan struct{} // closed then
}

// newMark puts a mark behind everything that waits.
func newMark(workers []*worker) *mark {
	m := &mark{passed: make(chan struct{})}
	m.open.Store(1) // until all are set
	for _, w := range workers {
		w.mark(m)
	}
	m.pass()
	return m
}

func (m *mark) pass() {
	if m.open.Add(-1) == 0 {
		close(m.passed)
	}
}
