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

// receive takes a message. It runs on the subscription's own goroutine, so it must be quick, and never call
// Redis. Heartbeats are seen here, whatever waits for sockets.
func (r *Receiver) receive(ctx context.Context, message rueidis.PubSubMessage) {
	if message.Message == presence.Heartbeat {
		r.heartbeat(message.Channel)
		return
	}
	r.cut(ctx, message)
	runtime.Gosched() // the workers first: what comes meanwhile is read together
}

// cut takes a message apart. It never fails: what can't be read is counted, and the next message is
// another's.
func (r *Receiver) cut(ctx context.Context, message rueidis.PubSubMessage) {
	var common *commonFrame // what envelopes without a frame of their own have
	defer func() { r.room.letGo(common) }()
	whole := []byte(message.Message)
	for rest := whole; len(rest) > 0; {
		var e envelope
		var err error
		if e, rest, err = cutEnvelope(rest); err == nil && e.kind == kindPushShared && common == nil {
			err = errEnvelope
		}
		if err != nil {
			r.malformed(message, err)
			return
		}
		switch {
		case e.kind == kindCall:
			if r.calls.isLate(message.Channel, e) {
				r.Dropped.Late.Add(1)
				return
			}
		case e.kind == kindFrame:
			r.room.letGo(common)
			common = &commonFrame{frame: slices.Clone(e.frame)} // a copy, for it may wait without the rest
			r.room.hold(common)
		case e.kind == kindPushShared:
			e.kind, e.frame, e.shared = kindPush, common.frame, &common.Shared
			r.put(job{envelope: e, common: common})
		default:
			if 2*len(e.frame) < len(whole) { // or a short frame that waits would keep a long message
				e.frame = slices.Clone(e.frame)
			}
			r.deliver(ctx, e)
		}
	}
}

func (r *Receiver) malformed(message rueidis.PubSubMessage, err error) {
	if count := r.Dropped.Malformed.Add(1); count&(count-1) == 0 { // the 1st, 2nd, 4th, …: it may rain them
		r.log.Warn("dropped a message", "so far", count, "channel", message.Channel, "bytes", len(message.Message),
			"error", err)
	}
}

// deliver does what an envelope is for, or has it done.
func (r *Receiver) deliver(ctx context.Context, e envelope) {
	switch e.kind {
	case kindPush, kindKickUser:
		r.put(job{envelope: e})
	case kindEmitAll, kindEmitAuthenticated:
		if e.sender == r.instance {
			return // served when it was sent
		}
		to := presence.Everybody
		if e.kind == kindEmitAuthenticated {
			to = presence.Authenticated
		}
		message := presence.Message{Frame: e.frame, Tracker: r.tally(0, e, e.within)}
		if !r.emitter.enqueue(emission{emit: &presence.Emit{To: to, Message: message}}) {
			r.Dropped.Emits.Add(1)
		}
	case kindKickSocket:
		if e.sender != r.instance && !r.emitter.enqueue(emission{walk: func() { r.kickSocket(e) }}) {
			r.Dropped.Emits.Add(1)
		}
	case kindReply:
		r.asks.arrive(e)
	case kindAudit:
		r.audit(ctx, e)
	default:
		r.Dropped.Unknown.Add(1)
	}
}

// put has a push or a kick done by the worker of its user. Whoever waits to hear of what finds no room hears
// nothing: it is unanswered.
func (r *Receiver) put(j job) {
	if j.ask != 0 {
		j.until = time.Now().Add(j.within)
	}
	if !r.workerOf(j.user).put(j) {
		r.Dropped.Overflow.Add(1)
	}
}

func (r *Receiver) workerOf(user string) *worker {
	return r.workers[maphash.String(r.seed, user)%uint64(len(r.workers))]
}

// kickSocket closes a socket, if it is here, behind what its user was sent before.
func (r *Receiver) kickSocket(e envelope) {
	found := r.sockets.Find(e.exclude)
	if len(found) == 0 {
		found.Close(uuid.Nil, CloseKicked, "", r.tally(0, e, e.within)) // which tells that there was none
		return
	}
	e.user = found[0].User // empty: such sockets take their turn together
	r.put(job{envelope: e, only: found[0]})
}

// begin starts a job, on its worker's goroutine.
func (r *Receiver) begin(j *job) presence.Walk {
	switch {
	case j.passed != nil:
		return presence.Walk{}
	case j.only != nil:
		return presence.List{j.only}.Closing(uuid.Nil, CloseKicked, string(j.frame), r.tallyOf(0, j))
	}
	shard, sockets := r.keys.ShardOf(j.user), r.sockets.Of(j.user)
	if len(sockets) == 0 {
		r.Dropped.Strays.Add(1)
		r.mirror.MarkDirty(j.user) // Redis believes that there are sockets
		if j.ask != 0 {
			r.reply(shard, j.envelope, ownerReply{stray: true}.append(nil))
			j.ask = 0 // it has been answered
		}
		return presence.Walk{}
	}
	tally := r.tallyOf(shard, j)
	if j.kind == kindKickUser {
		return sockets.Closing(j.exclude, CloseKicked, string(j.frame), tally)
	}
	return sockets.Sending(j.exclude, presence.Message{Frame: j.frame, Shared: j.shared, Tracker: tally})
}

// finish is told that a job is done, on its worker's goroutine.
func (r *Receiver) finish(j *job) {
	switch {
	case j.passed != nil:
		j.passed.pass()
	case j.ask != 0 && j.within == 0:
		r.reply(r.keys.ShardOf(j.user), j.envelope, ownerReply{}.append(nil))
	}
}

// tallyOf is a job's tally; nil if there is nothing to tell, or nobody waits for it any more.
func (r *Receiver) tallyOf(shard int, j *job) *presence.Tracker {
	if j.ask == 0 || j.within == 0 {
		return nil
	}
	left := time.Until(j.until)
	if left <= 0 {
		return nil
	}
	return r.tally(shard, j.envelope, left)
}

// tally makes a tally that replies with its counts within a time, if the sender waits for a reply.
func (r *Receiver) tally(shard int, e envelope, within time.Duration) *presence.Tracker {
	if e.ask == 0 {
		return nil
	}
	tally := presence.NewTracker(e.id, func(counts presence.Counts) {
		r.reply(shard, e, ownerReply{counts: counts}.append(nil))
	})
	tally.ExpireAfter(within)
	return tally
}
