package fanout

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

// usualHead is how many bytes an envelope has besides the frame and the user, if nobody waits for a reply.
const usualHead = 12

// route sends one batch. It is not tried again if it fails: it may have got through, or get through later, when other calls have. Calls
// are numbered, so that their messages are then known to be late.
func (l *lane) route(ctx context.Context, batch []*order) {
	ctx, cancel := context.WithTimeout(ctx, l.router.redis.Timeout)
	defer cancel()
	began := time.Now()
	answers, err := l.call(ctx, batch)
	if l.router.meter != nil {
		l.router.meter.Batch(len(batch), time.Since(began), err)
	}
	if failed := err != nil; failed != l.failing { // once, however many pushes fail
		l.failing = failed
		l.router.log.Warn("route", "shard", l.shard, "failing", failed, "error", err)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	recentLoss := l.router.receiver.mirror.RecoveringFromLoss(l.shard)
	for i, o := range batch {
		if err != nil {
			o.settle(sent, Outcome{Err: err}, 0)
			continue
		}
		state, reached, elsewhere := unpack(answers[i])
		if state == presence.Unknown || recentLoss && state != presence.Online { // others may have sockets, and Redis does not know
			o.settle(sent, Outcome{Err: errForgotten}, 0)
		} else {
			o.settle(sent, Outcome{State: state, Instances: reached}, elsewhere)
		}
	}
}

var errForgotten = fmt.Errorf("%w: it has lost what it held", ErrUnreachable)

// unpack reads a number of push.lua's answer.
func unpack(answer int64) (state presence.State, reached, sockets int) {
	return presence.State(answer & 3), int(answer >> 2 & 0xffff), int(answer >> 18)
}

// call runs push.lua and returns a number for each order.
func (l *lane) call(ctx context.Context, batch []*order) ([]int64, error) {
	redis := l.router.redis
	l.calls++
	head := envelope{kind: kindCall, ask: l.calls, sender: l.router.instance}.append(nil)
	frames, numbers := framesInCommon(batch)
	shares := func(i int) bool { return len(numbers) > 0 && numbers[i] > 0 }
	args := make([]string, 0, 7+2*len(batch)+len(frames))
	args = append(args, redis.PublishCommand(), redis.Keys.Channels(l.shard), strconv.FormatInt(redis.Grace.Milliseconds(), 10),
		rueidis.BinaryString(head), strconv.Itoa(len(batch)), rueidis.BinaryString(numbers), l.router.receiver.mirror.Incarnation(l.shard))
	size := 0
	for i, o := range batch {
		args = append(args, o.push.User)
		if size += usualHead + len(o.push.User); !shares(i) {
			size += len(o.push.Frame)
		}
	}
	text := make([]byte, 0, size) // of all envelopes
	for i, o := range batch {
		from := len(text)
		text = l.envelope(o, shares(i)).append(text)
		args = append(args, rueidis.BinaryString(text[from:]))
	}
	args = append(args, frames...)
	keys := []string{redis.Keys.Owners(l.shard), redis.Keys.Leases(l.shard)}
	answers, err := lua.Push.Exec(ctx, redis.Client, keys, args).AsIntSlice()
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("push.lua answered %d numbers for %d envelopes", len(answers), len(batch))
	}
	return answers, err
}

// framesInCommon are envelopes with the frames that more than one of the orders have, and for each order the number of its frame, from 1;
// 0 if it has its own. No numbers: none has. A call has too few orders for numbers to be more than a byte.
func framesInCommon(batch []*order) (frames []string, numbers []byte) {
	var first map[*presence.Shared]int // the order that has it first
	for i, o := range batch {
		shared := o.push.Shared
		if shared == nil {
			continue
		}
		if first == nil {
			first, numbers = map[*presence.Shared]int{}, make([]byte, len(batch))
		}
		before, known := first[shared]
		if !known {
			first[shared] = i
			continue
		}
		if numbers[before] == 0 {
			frames = append(frames, rueidis.BinaryString(envelope{kind: kindFrame, frame: o.push.Frame}.append(nil)))
			numbers[before] = byte(len(frames))
		}
		numbers[i] = numbers[before]
	}
	return frames, numbers
}

// envelope is what the order's other owners get. sharing: the frame comes before it.
func (l *lane) envelope(o *order, sharing bool) envelope {
	e := envelope{kind: o.kind(), user: o.push.User, exclude: o.push.Exclude, frame: o.push.Frame}
	if sharing {
		e.kind, e.frame = kindPushShared, nil
	}
	if o.inquiry != nil {
		e.ask, e.sender, e.id = o.inquiry.number, l.router.instance, o.ackedID()
		if o.push.Wait != Handed { // which needs no time: it is replied to at once when that is so
			e.within = replyWithin(o.ticket.until)
		}
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
