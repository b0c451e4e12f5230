package fanout

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

const (
	closeTime = time.Second           // to route what is queued when the bus stops
	lateCheck = 10 * time.Millisecond // how often checkLate looks while a call hangs
)

// shardRouter routes the pushes of one shard. One call of push.lua is under way at a time. Pushes that come
// meanwhile wait in the queue and share the next one.
type shardRouter struct {
	// static after construction
	bus   *Bus
	shard int
	locks userLocks
	queue *shardQueue

	late *time.Timer // runs checkLate while a call is under way; else it is stopped

	// owned by the run loop
	failing  bool   // the last call failed
	sequence uint64 // number of the last batch

	calling atomic.Bool // a call is under way; checkLate reads it
}

func newShardRouter(b *Bus, shard int) *shardRouter {
	r := &shardRouter{bus: b, shard: shard, queue: newShardQueue()}
	r.late = time.AfterFunc(lateCheck, r.checkLate)
	r.late.Stop()
	return r
}

// checkLate gives up pushes whose callers' time is over while a call hangs: nobody takes from the queue then.
func (r *shardRouter) checkLate() {
	r.queue.giveUpLate(time.Now())
	if r.calling.Load() {
		r.late.Reset(lateCheck)
	}
}

// begin delivers a push to the local sockets and queues it for all other instances, or refuses it if there is
// no room.
func (r *shardRouter) begin(p *pendingPush) {
	lock := r.locks.lock(p.push.User)
	defer r.locks.unlock(lock)
	if err := r.admit(p); err != nil {
		p.complete(waiting, Outcome{Err: err}, 0)
		return
	}
	p.local = r.bus.deliverHere(p)
	if p.push.Wait == Handed {
		p.collector.onLocal(presence.Counts{})
	}
	r.queue.add(p)
}

func (r *shardRouter) admit(p *pendingPush) error {
	if err := r.queue.admit(p); err != nil {
		return err
	}
	if err := r.bus.collectReports(p); err != nil {
		r.queue.withdraw(p)
		return err
	}
	return nil
}

// run routes until the context ends. It then refuses what comes, and routes what is queued.
func (r *shardRouter) run(ctx context.Context) {
	unbroken := context.WithoutCancel(ctx) // a call that is under way when the bus stops ends as any other
	r.queue.filled.loop(ctx, func() { r.drain(unbroken) })
	r.queue.close()
	unbroken, cancel := context.WithTimeout(unbroken, closeTime)
	defer cancel()
	r.drain(unbroken)
}

// drain routes until the queue is empty.
func (r *shardRouter) drain(ctx context.Context) {
	for {
		runtime.Gosched() // those who are about to push do so now, and share the call
		batch := r.queue.take(time.Now())
		if len(batch) == 0 {
			return
		}
		r.route(ctx, batch)
	}
}

// route sends a batch and completes its pushes. The batch is read here without a lock: take has removed it
// from the queue and marked each push as sent, so only this loop may complete them.
//
// A batch that fails is not tried again. It may have got through, or may get through later, when other
// batches have. Batches are numbered so that receivers can then drop it (see sequenceGuard).
func (r *shardRouter) route(ctx context.Context, batch []*pendingPush) {
	began := time.Now()
	r.calling.Store(true)
	r.late.Reset(lateCheck)
	answers, err := r.call(ctx, batch)
	r.calling.Store(false)
	r.late.Stop()
	if r.bus.meter != nil {
		r.bus.meter.Batch(len(batch), time.Since(began), err)
	}
	if failed := err != nil; failed != r.failing { // logged once, however many pushes fail
		r.failing = failed
		r.bus.log.Warn("route", "shard", r.shard, "failing", failed, "error", err)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	recentLoss := r.bus.mirror.RecoveringFromLoss(r.shard)
	for i, p := range batch {
		if err != nil {
			p.complete(sent, Outcome{Err: err}, 0)
			continue
		}
		state, instances, sockets := unpackAnswer(answers[i])
		if state == presence.Unknown || recentLoss && state != presence.Online {
			p.complete(sent, Outcome{Err: errStateLost}, 0) // others may have sockets
			continue
		}
		p.complete(sent, Outcome{State: state, Instances: instances}, sockets)
	}
}

var errStateLost = fmt.Errorf("%w: it has lost what it held", ErrUnreachable)

// unpackAnswer reads a number of push.lua's answer. The head of the script says how it is packed.
func unpackAnswer(answer int64) (state presence.State, instances, sockets int) {
	return presence.State(answer & 3), int(answer >> 2 & 0xffff), int(answer >> 18)
}

// usualHead is how many bytes an envelope has besides the frame and the user, if nobody waits for a report.
const usualHead = 12

// call runs push.lua. It returns a number for each push.
func (r *shardRouter) call(ctx context.Context, batch []*pendingPush) ([]int64, error) {
	redis := r.bus.redis
	r.sequence++
	head := envelope{kind: kindBatch, request: r.sequence, sender: r.bus.instance}.append(nil)
	frames, numbers := sharedFrames(batch)
	sharing := rueidis.BinaryString(numbers)
	if len(frames) == 0 {
		sharing = "" // spares the script a look at each
	}
	args := make([]string, 0, 7+2*len(batch)+len(frames))
	args = append(args, redis.PublishCommand(), redis.Keys.Channels(r.shard),
		strconv.FormatInt(redis.Grace.Milliseconds(), 10), rueidis.BinaryString(head),
		strconv.Itoa(len(batch)), sharing, r.bus.mirror.Incarnation(r.shard))
	size := 0
	for i, p := range batch {
		args = append(args, p.push.User)
		size += usualHead + len(p.push.User)
		if numbers[i] == 0 {
			size += len(p.push.Frame)
		}
	}
	text := make([]byte, 0, size) // of all envelopes
	for i, p := range batch {
		from := len(text)
		text = r.envelopeOf(p, numbers[i] > 0).append(text)
		args = append(args, rueidis.BinaryString(text[from:]))
	}
	args = append(args, frames...)
	keys := []string{redis.Keys.Owners(r.shard), redis.Keys.Leases(r.shard)}
	answers, err := redis.Exec(ctx, lua.Push, keys, args).AsIntSlice()
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("push.lua answered %d numbers for %d envelopes", len(answers), len(batch))
	}
	return answers, err
}

// envelopeOf is what other owners get. If the frame is shared, it goes before the envelope.
func (r *shardRouter) envelopeOf(p *pendingPush, shared bool) envelope {
	e := envelope{kind: kindPush, user: p.push.User, exclude: p.push.Exclude, frame: p.push.Frame}
	switch {
	case p.push.kick:
		e.kind = kindKickUser
	case shared:
		e.kind, e.frame = kindPushShared, nil
	}
	if p.collector != nil {
		e.request, e.sender, e.id = p.collector.number, r.bus.instance, p.ackedID()
		if p.push.Wait != Handed { // which needs no time: it is reported as soon as it happens
			e.within = reportTime(p.ticket.until)
		}
	}
	return e
}

// sharedFrames are envelopes with the frames that several pushes of a batch share. numbers has for each push
// the number of its frame, from 1; 0 if it has its own. A number fits into a byte, because a batch has at
// most batchMost pushes, and each of these frames belongs to two or more.
func sharedFrames(batch []*pendingPush) (frames []string, numbers []byte) {
	numbers = make([]byte, len(batch))
	first := map[*presence.Shared]int{} // the push that has it first
	for i, p := range batch {
		shared := p.push.Shared
		if shared == nil {
			continue
		}
		before, found := first[shared]
		if !found {
			first[shared] = i
			continue
		}
		if numbers[before] == 0 {
			frame := envelope{kind: kindFrame, frame: p.push.Frame}.append(nil)
			frames = append(frames, rueidis.BinaryString(frame))
			numbers[before] = byte(len(frames))
		}
		numbers[i] = numbers[before]
	}
	return frames, numbers
}
