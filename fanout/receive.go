package fanout

import (
	"context"
	"hash/maphash"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/presence"
)

// receive takes a message apart. It runs on the goroutine of a subscription, so it must be quick, and must
// never call Redis. What cannot be read is counted, and the rest of its message is dropped.
func (b *Bus) receive(ctx context.Context, message rueidis.PubSubMessage) {
	var shared *sharedFrame // of the envelopes that have no frame of their own
	defer func() { b.room.release(shared) }()
	whole := []byte(message.Message)
	for rest := whole; len(rest) > 0; {
		var e envelope
		var err error
		if e, rest, err = cutEnvelope(rest); err != nil {
			b.malformed(message, err)
			return
		}
		switch e.kind {
		case kindBatch:
			if b.guard.isSuperseded(message.Channel, e.sender, e.request) {
				b.Dropped.Late.Add(1)
				return
			}
		case kindFrame:
			b.room.release(shared)
			shared = &sharedFrame{frame: slices.Clone(e.frame)} // it may wait longer than the rest
			b.room.hold(shared)
		case kindPushShared:
			if shared == nil {
				b.malformed(message, errEnvelope)
				return
			}
			e.kind, e.frame, e.shared = kindPush, shared.frame, &shared.Shared
			b.enqueue(job{envelope: e, from: shared})
		default:
			if 2*len(e.frame) < len(whole) { // a short frame that waits would keep a long message in memory
				e.frame = slices.Clone(e.frame)
			}
			b.dispatch(ctx, e)
		}
	}
	runtime.Gosched() // the workers first: what comes meanwhile is then read together
}

func (b *Bus) malformed(message rueidis.PubSubMessage, err error) {
	count := b.Dropped.Malformed.Add(1)
	if count&(count-1) == 0 { // the 1st, 2nd, 4th, …: there may be very many
		b.log.Warn("dropped a message", "so far", count, "channel", message.Channel,
			"bytes", len(message.Message), "error", err)
	}
}

// dispatch does what an envelope asks for, or has it done.
func (b *Bus) dispatch(ctx context.Context, e envelope) {
	switch e.kind {
	case kindPush, kindKickUser:
		b.enqueue(job{envelope: e})
	case kindEmitAll, kindEmitAuthenticated:
		b.receiveEmit(e)
	case kindKickSocket:
		b.receiveKickSocket(e)
	case kindReply:
		b.requests.resolve(e)
	case kindAudit:
		b.receiveAudit(ctx, e)
	default:
		b.Dropped.Unknown.Add(1)
	}
}

// enqueue gives a job to the worker of its user. If there is no room the job is dropped, and nothing is
// reported of it: for the sender it counts as unanswered.
func (b *Bus) enqueue(j job) {
	if j.request != 0 {
		j.until = time.Now().Add(j.within)
	}
	if !b.workerOf(j.user).put(j) {
		b.Dropped.Overflow.Add(1)
	}
}

func (b *Bus) workerOf(user string) *worker {
	return b.workers[maphash.String(b.seed, user)%uint64(len(b.workers))]
}

// start starts a job, on its worker's goroutine.
func (b *Bus) start(j *job) presence.Walk {
	switch {
	case j.mark != nil:
		return presence.Walk{}
	case j.only != nil:
		return presence.List{j.only}.Closing(uuid.Nil, closeKicked, string(j.frame), b.trackerOf(0, j))
	}
	sockets := b.sockets.Of(j.user)
	if len(sockets) == 0 {
		b.reportAbsent(j)
		return presence.Walk{}
	}
	tracker := b.trackerOf(b.redis.Keys.ShardOf(j.user), j)
	if j.kind == kindKickUser {
		return sockets.Closing(j.exclude, closeKicked, string(j.frame), tracker)
	}
	return sockets.Sending(j.exclude, presence.Message{Frame: j.frame, Shared: j.shared, Tracker: tracker})
}

// reportAbsent reports that the user of a job has no socket here, and has the mirror correct what Redis
// shows.
func (b *Bus) reportAbsent(j *job) {
	b.Dropped.NoSocket.Add(1)
	b.mirror.MarkDirty(j.user)
	if j.request != 0 {
		b.reply(b.redis.Keys.ShardOf(j.user), j.envelope, report{absent: true}.append(nil))
		j.request = 0 // it is answered
	}
}

// finish is called when a job is done, on its worker's goroutine.
func (b *Bus) finish(j *job) {
	switch {
	case j.mark != nil:
		j.mark.pass()
	case j.request != 0 && j.within == 0: // Handed
		b.reply(b.redis.Keys.ShardOf(j.user), j.envelope, report{}.append(nil))
	}
}

// trackerOf is a job's tracker; nil if there is nothing to report, or nobody waits for it any more.
func (b *Bus) trackerOf(shard int, j *job) *presence.Tracker {
	if j.request == 0 || j.within == 0 {
		return nil
	}
	remaining := time.Until(j.until)
	if remaining <= 0 {
		return nil
	}
	return b.newTracker(shard, j.envelope, remaining)
}

// newTracker makes a tracker that replies with its counts, at the latest after the time within; nil if the
// sender waits for no reply.
func (b *Bus) newTracker(shard int, e envelope, within time.Duration) *presence.Tracker {
	if e.request == 0 {
		return nil
	}
	tracker := presence.NewTracker(e.id, func(counts presence.Counts) {
		b.reply(shard, e, report{counts: counts}.append(nil))
	})
	tracker.ExpireAfter(within)
	return tracker
}
