package fanout

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"rollcall/presence"
)

// reply answers a request, through a shard's channel of the instance that sent it.
func (b *Bus) reply(shard int, request envelope, frame []byte) {
	channel := b.redis.Keys.Channels(shard) + request.sender
	reply := envelope{kind: kindReply, request: request.request, sender: b.instance, frame: frame}
	b.replies[shard].send(channel, reply)
}

// replyBytes is how much may wait to be sent in a shard. At the cap a reply is dropped and counted. The
// instance that waits for it then counts this one as unanswered.
const replyBytes = 4 << 20

// replyBatcher sends replies of one shard to the instances that wait for them. All replies that wait at the
// same moment share one round trip, and all for the same instance one message.
type replyBatcher struct {
	// static after construction
	redis   presence.Redis
	log     *slog.Logger
	dropped *atomic.Int64

	filled signal // there is something to send

	mu sync.Mutex
	// mu guards the following
	messages map[string][]byte // by channel
	bytes    int
}

func newReplyBatcher(redis presence.Redis, log *slog.Logger, dropped *atomic.Int64) *replyBatcher {
	return &replyBatcher{
		redis: redis, log: log, dropped: dropped,
		filled: newSignal(), messages: map[string][]byte{},
	}
}

// send queues a reply. It never blocks.
func (r *replyBatcher) send(channel string, reply envelope) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes > replyBytes {
		r.dropped.Add(1)
		return
	}
	before := len(r.messages[channel])
	r.messages[channel] = reply.append(r.messages[channel])
	r.bytes += len(r.messages[channel]) - before
	r.filled.set()
}

// run sends until the context ends.
func (r *replyBatcher) run(ctx context.Context) {
	r.filled.loop(ctx, func() { r.flush(ctx) })
}

func (r *replyBatcher) flush(ctx context.Context) {
	r.mu.Lock()
	messages := r.messages
	r.messages, r.bytes = map[string][]byte{}, 0
	r.mu.Unlock()
	for _, err := range r.redis.PublishAll(ctx, messages) {
		r.dropped.Add(1)
		r.log.Warn("reply", "error", err)
	}
}
