package fanout

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

const (
	sharedFrom = 8  // orders of a call with the same frame, for each message to have it once: to some instances it goes in vain
	usualHead  = 12 // bytes of an envelope besides the frame and the user, if nobody waits for a reply
)

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

// call runs push.lua and returns a number for each order.
func (l *lane) call(ctx context.Context, batch []*order) ([]int64, error) {
	redis := l.router.redis
	l.calls++
	head := envelope{kind: kindCall, ask: l.calls, sender: l.router.instance}.append(nil)
	head, numbers := appendShared(head, batch)
	args := make([]string, 6+2*len(batch))
	args[0], args[1] = redis.Publish, redis.Keys.Channels(l.shard)
	args[2] = " " + strings.Join(append([]string{l.router.instance}, batch[0].skip...), " ") + " "
	args[3], args[4], args[5] = strconv.FormatInt(redis.Grace.Milliseconds(), 10), rueidis.BinaryString(head), strconv.Itoa(len(batch))
	size := 0
	for _, o := range batch {
		size += usualHead + len(o.push.User) + o.weight
	}
	text := make([]byte, 0, size) // of all envelopes
	for i, o := range batch {
		from := len(text)
		text = l.envelope(o, numbers).append(text)
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
