package fanout

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

const (
	laneOrders = 8192            // waiting orders in a lane: some 50 full calls; more are refused with ErrBusy
	laneBytes  = 32 << 20        // and their frames
	batchMost  = 256             // orders a call: 128 are enough to share its cost, and 256 hold Redis up for less than a millisecond
	batchBytes = 1 << 20         // and their frames, at most twice that
	sharedFrom = 8               // orders of a call with one frame: each message has it once, and some may have it in vain
	usualHead  = 12              // bytes of an envelope besides the frame and the user, if nobody waits for a reply
	leaveTime  = 1 * time.Second // to route what is queued when the router stops
)

// lane is the queue of one shard: one call at a time is under way, and what comes meanwhile shares the next.
type lane struct {
	// static after construction
	shard  int
	router *Router

	// owned by the run loop
	failing bool   // the last call did
	calls   uint64 // so far

	wake chan struct{} // capacity 1: one signal is enough; never closed

	turns turns

	mu sync.Mutex
	// mu guards the following
	queue    []*order
	admitted int // orders that are queued, or will be when our own sockets have got them
	bytes    int // of their frames
	closed   bool
	numbers  uint64            // orders taken so far
	watched  map[string]*watch // by user; at most one for each open inquiry

	expires time.Time   // when the first caller stops waiting; zero: nobody waits
	expiry  *time.Timer // runs expire then; nil until it is needed first
}

func newLane(shard int, r *Router) *lane {
	l := &lane{shard: shard, router: r, wake: make(chan struct{}, 1), watched: map[string]*watch{}}
	l.turns.seed = maphash.MakeSeed()
	return l
}

// turns are locks of which each user has one, with others: who holds it is the only one who pushes to that user. So the user's sockets
// here and the queue get pushes in the same order, and writing to one user's sockets holds up no other's.
type turns struct {
	seed  maphash.Seed
	locks [64]sync.Mutex // their number: far more than the cores that could want one at once
}

func (l *lane) turnOf(user string) *sync.Mutex {
	return &l.turns.locks[maphash.String(l.turns.seed, user)%uint64(len(l.turns.locks))]
}

// enqueue serves the local sockets and queues the order for all other instances, or refuses it if there is no room.
func (l *lane) enqueue(o *order) {
	turn := l.turnOf(o.push.User)
	turn.Lock()
	defer turn.Unlock()
	l.enqueueInTurn(o, false)
}

// enqueueInTurn is enqueue for who has the user's turn. servedHere: our own sockets have got it already.
func (l *lane) enqueueInTurn(o *order, servedHere bool) {
	if err := l.admit(o); err != nil {
		o.settle(queued, Outcome{Err: err}, 0)
		return
	}
	if servedHere {
		o.inquiry.gather.onLocal(presence.Counts{})
	} else {
		o.local = l.serve(o)
	}
	l.mu.Lock()
	l.queue = append(l.queue, o)
	if until := o.ticket.until; l.expires.IsZero() || until.Before(l.expires) {
		l.expireAtLocked(until)
	}
	l.mu.Unlock()
	l.signal()
}

// admit keeps room for an order and numbers it.
func (l *lane) admit(o *order) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosing
	case l.admitted >= laneOrders || l.bytes+o.weight > laneBytes:
		return ErrBusy
	}
	if err := l.begin(o); err != nil {
		return err
	}
	l.admitted++
	l.bytes += o.weight
	l.numberLocked(o)
	return nil
}

// serve does for our own sockets what the order is for.
func (l *lane) serve(o *order) (took int) {
	sockets := l.router.sockets.Of(o.push.User)
	if o.push.kick {
		return sockets.Close(o.push.Exclude, CloseKicked, string(o.push.Frame), o.tally())
	}
	return sockets.Deliver(o.push.Exclude, presence.Message{Frame: o.push.Frame, Shared: o.push.Shared, Tally: o.tally()})
}

// expire gives up what is still queued when its caller stops waiting.
func (l *lane) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, first := time.Now(), time.Time{}
	for _, o := range l.queue {
		switch until := o.ticket.until; {
		case !until.After(now):
			o.settle(queued, Outcome{Err: context.DeadlineExceeded}, 0)
		case first.IsZero() || until.Before(first):
			first = until
		}
	}
	if l.expires = first; !first.IsZero() {
		l.expireAtLocked(first)
	}
}

func (l *lane) expireAtLocked(at time.Time) {
	l.expires = at
	if l.expiry == nil {
		l.expiry = time.AfterFunc(time.Until(at), l.expire)
	} else {
		l.expiry.Reset(time.Until(at))
	}
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) run(ctx context.Context) {
	for {
		select {
		case <-l.wake:
			l.drain(context.WithoutCancel(ctx))
		case <-ctx.Done():
			l.close(ctx)
			return
		}
	}
}

// drain routes until nothing is queued.
func (l *lane) drain(ctx context.Context) {
	for {
		runtime.Gosched() // let those who are about to push do so: they share the call
		batch := l.take()
		if len(batch) == 0 {
			return
		}
		l.route(ctx, batch)
	}
}

// close refuses what comes from now on and routes what is queued.
func (l *lane) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for i := range l.turns.locks { // who has a turn may have been admitted, and is about to queue
		l.turns.locks[i].Lock()
		l.turns.locks[i].Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	l.drain(ctx)
}

// take removes from the queue what one call may carry, without what its callers have given up.
func (l *lane) take() []*order {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := make([]*order, 0, min(len(l.queue), batchMost))
	taken, bytes := 0, 0
	var shared *presence.Shared // of the last
	for taken < len(l.queue) && len(batch) < batchMost && bytes < batchBytes {
		o := l.queue[taken]
		if len(o.skip) > 0 && len(batch) > 0 {
			break // it gets a call of its own
		}
		taken++
		l.admitted--
		l.bytes -= o.weight
		if o.claim() {
			batch = append(batch, o)
			if o.push.Shared == nil || o.push.Shared != shared {
				bytes += len(o.push.Frame)
			}
			shared = o.push.Shared
		}
		if len(o.skip) > 0 {
			break
		}
	}
	left := copy(l.queue, l.queue[taken:])
	clear(l.queue[left:]) // lets go of the frames
	l.queue = l.queue[:left]
	return batch
}

// route sends one batch. It is not tried again if it fails: it may have got through, or get through later, when other calls have. Calls
// are numbered, so that their messages are then known to be late.
func (l *lane) route(ctx context.Context, batch []*order) {
	ctx, cancel := context.WithTimeout(ctx, l.router.redis.Timeout)
	defer cancel()
	began := time.Now()
	answers, err := l.call(ctx, batch)
	l.router.meter.Batch(len(batch), time.Since(began), err)
	if failed := err != nil; failed != l.failing { // once, however many pushes fail
		l.failing = failed
		l.router.log.Warn("route", "shard", l.shard, "failing", failed, "error", err)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	for i, o := range batch {
		if err != nil {
			o.settle(sent, Outcome{Err: err}, 0)
		} else {
			state, reached, elsewhere := unpack(answers[i])
			o.settle(sent, Outcome{State: state, Instances: reached}, elsewhere)
		}
	}
}

// unpack reads a number of push.lua's answer.
func unpack(answer int64) (state presence.State, reached, sockets int) {
	return presence.State(answer & 3), int(answer >> 2 & 0xffff), int(answer >> 18)
}

func (l *lane) call(ctx context.Context, batch []*order) ([]int64, error) {
	redis := l.router.redis
	l.calls++
	head := envelope{kind: kindCall, ask: l.calls, sender: l.router.instance}.append(nil)
	head, numbers := appendShared(head, batch)
	args := make([]string, 6+2*len(batch))
	args[0], args[1] = redis.Publish, redis.Keys.Channels(l.shard)
	args[2] = " " + strings.Join(append([]string{l.router.instance}, batch[0].skip...), " ") + " "
	args[3], args[4], args[5] = strconv.FormatInt(redis.Grace.Milliseconds(), 10), rueidis.BinaryString(head), strconv.Itoa(len(batch))
	size, envelopes := 0, make([]envelope, len(batch))
	for i, o := range batch {
		envelopes[i] = l.envelope(o, numbers)
		size += usualHead + len(o.push.User) + len(envelopes[i].frame)
	}
	text := make([]byte, 0, size)
	for i, o := range batch {
		from := len(text)
		text = envelopes[i].append(text)
		args[6+i], args[6+len(batch)+i] = o.push.User, rueidis.BinaryString(text[from:])
	}
	keys := []string{redis.Keys.Owners(l.shard), redis.Keys.Leases(l.shard)}
	answers, err := lua.Push.Exec(ctx, redis.Client, keys, args).AsIntSlice()
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("push.lua answered %d numbers for %d envelopes", len(answers), len(batch))
	}
	return answers, err
}

// appendShared appends the frames that enough orders have in common, and numbers them.
func appendShared(head []byte, batch []*order) ([]byte, map[*presence.Shared]uint64) {
	var counts, numbers map[*presence.Shared]uint64
	for _, o := range batch {
		shared := o.push.Shared
		if shared == nil {
			continue
		}
		if counts == nil {
			counts, numbers = map[*presence.Shared]uint64{}, map[*presence.Shared]uint64{}
		}
		if counts[shared]++; counts[shared] == sharedFrom {
			numbers[shared] = uint64(len(numbers))
			head = envelope{kind: kindFrame, frame: o.push.Frame}.append(head)
		}
	}
	return head, numbers
}

// envelope is what the order's other owners get. numbers are those of frames that come before.
func (l *lane) envelope(o *order, numbers map[*presence.Shared]uint64) envelope {
	e := envelope{kind: o.kind(), user: o.push.User, exclude: o.push.Exclude, frame: o.push.Frame}
	if number, ok := numbers[o.push.Shared]; ok {
		e.kind, e.frame = kindPushShared, binary.AppendUvarint(nil, number)
	}
	if o.inquiry != nil {
		e.ask, e.sender, e.id = o.inquiry.ask, l.router.instance, o.ackedID()
		e.within = replyWithin(o.ticket.until)
	}
	return e
}

// ackedID is the push that clients must confirm; uuid.Nil if they need not.
func (o *order) ackedID() uuid.UUID {
	if o.push.Wait == Acked {
		return o.push.ID
	}
	return uuid.Nil
}

func (o *order) kind() kind {
	if o.push.kick {
		return kindKickUser
	}
	return kindPush
}

// replyWithin is the time that an instance has to reply to a question: the reply needs some time too.
func replyWithin(until time.Time) time.Duration { return max(time.Until(until)*9/10, time.Millisecond) }
