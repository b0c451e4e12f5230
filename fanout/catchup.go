package fanout

import (
	"context"
	"fmt"
)

// CatchUp waits until everything is handed to sockets that others sent to this instance before the call, or the context ends. It sends a
// message to itself in every shard, behind theirs.
func (r *Receiver) CatchUp(ctx context.Context) error {
	came := make(chan struct{}, len(r.ears))
	for shard := range r.ears {
		ask, err := r.asks.begin(func(string, []byte) {
			select {
			case came <- struct{}{}:
			default:
			}
		}, "")
		if err != nil {
			return err
		}
		defer r.asks.end(ask)
		message := envelope{kind: kindReply, ask: ask, sender: r.instance}.append(nil)
		if err := r.redis.Client.Do(ctx, publish(r.redis, r.keys.Channels(shard)+r.instance, message)).Error(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	for range r.ears {
		select {
		case <-came:
		case <-ctx.Done():
			return fmt.Errorf("fanout: catch up: %w", context.Cause(ctx))
		}
	}
	// all of it is here now; the emitter first, for it hands kicks of one socket on to the workers
	if err := r.emitter.finish(ctx, nil); err != nil {
		return err
	}
	handed := newBarrier(r.workers)
	select {
	case <-handed.passed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fanout: catch up: %w", context.Cause(ctx))
	}
}
