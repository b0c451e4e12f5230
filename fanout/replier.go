package fanout

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"

	"rollcall/presence"
)

// repliesBytes is how much may wait to be replied in a shard; at the cap a reply is dropped and counted, and its asker finds it unanswered.
const repliesBytes = 4 << 20

// replier sends replies to the channels of those who asked, in one shard: all that wait at the same moment share one round trip, and those
// for one instance one message.
type replier struct {
	// static after construction
	redis   presence.Redis
	log     *slog.Logger
	dropped *atomic.Int64

	wake chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	waiting map[string][]byte // channel → message
	bytes   int
}

func newReplier(redis presence.Redis, log *slog.Logger, dropped *atomic.Int64) *replier {
	return &replier{redis: redis, log: log, dropped: dropped, wake: make(chan struct{}, 1), waiting: map[string][]byte{}}
}

// send queues a reply to a question. It never blocks.
func (r *replier) send(channel string, reply envelope) {
	r.mu.Lock()
	if r.bytes > repliesBytes {
		r.mu.Unlock()
		r.dropped.Add(1)
		return
	}
	before := len(r.waiting[channel])
	r.waiting[channel] = reply.append(r.waiting[channel])
	r.bytes += len(r.waiting[channel]) - before
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run sends until the context ends.
func (r *replier) run(ctx context.Context) {
	for {
		select {
		case <-r.wake:
			r.flush(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (r *replier) flush(ctx context.Context) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting, r.bytes = map[string][]byte{}, 0
	r.mu.Unlock()
	commands := make(rueidis.Commands, 0, len(waiting))
	for channel, message := range waiting {
		commands = append(commands, publish(r.redis, channel, message))
	}
	if len(commands) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.redis.Timeout)
	defer cancel()
	for _, reply := range r.redis.Client.DoMulti(ctx, commands...) {
		if err := reply.Error(); err != nil {
			r.dropped.Add(1)
			r.log.Warn("reply", "error", err)
		}
	}
}
