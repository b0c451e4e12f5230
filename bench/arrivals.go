package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Arrivals counts the pushes, or emits, that reached sockets.
type Arrivals struct {
	Received int64 // each push once
	Doubled  int64 // what a socket got again
	Strays   int64 // pushes that were for another user
	Strange  int64 // frames that were not pushes
	Ended    int64 // sockets that were closed
}

func (a Arrivals) plus(b Arrivals) Arrivals {
	return Arrivals{a.Received + b.Received, a.Doubled + b.Doubled, a.Strays + b.Strays, a.Strange + b.Strange, a.Ended + b.Ended}
}

// fault says what is wrong with them; nil if each push arrived once, where it should.
func (a Arrivals) fault(sent int64) error {
	if a == (Arrivals{Received: sent}) {
		return nil
	}
	return fmt.Errorf("sent %d, but what arrived is %+v", sent, a)
}

// row tells of them in the table.
func (a Arrivals) row(what string, sent int64) row {
	return row{what: what + ": sent · received · lost · doubled", text: fmt.Sprintf("%s · %s · %s · %s",
		thousands(sent), thousands(a.Received), thousands(sent-a.Received), thousands(a.Doubled))}
}

// awaitArrivals waits until so many pushes have arrived, or none does any more.
func awaitArrivals(ctx context.Context, sent int64, ask func(context.Context) (Arrivals, error)) (Arrivals, error) {
	const patience = 2 * time.Second // without one arrival: what has not come by then will not
	var last Arrivals
	for moved := time.Now(); time.Since(moved) < patience; {
		now, err := ask(ctx)
		if err != nil || now.Received >= sent {
			return now, err
		}
		if now.Received > last.Received {
			moved = time.Now()
		}
		last = now
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
	return last, nil
}

// finalArrivals are those at the end, after a moment in which what comes twice may come.
func finalArrivals(ctx context.Context, ask func(context.Context) (Arrivals, error)) (Arrivals, error) {
	select {
	case <-time.After(200 * time.Millisecond):
		return ask(ctx)
	case <-ctx.Done():
		return Arrivals{}, context.Cause(ctx)
	}
}

// tally counts for all sockets of a process.
type tally struct {
	received, doubled, strays, strange, ended atomic.Int64

	mu sync.Mutex
	// mu guards the following
	delays []time.Duration // of the pushes that have a time
}

func (t *tally) arrivals() Arrivals {
	return Arrivals{t.received.Load(), t.doubled.Load(), t.strays.Load(), t.strange.Load(), t.ended.Load()}
}

// inbox counts for one socket. It is owned by whoever reads that socket.
type inbox struct {
	tally       *tally
	user, users int64    // of all numbers, those are for it that are user modulo users
	seen        []uint64 // a bit for each push to this user: number 0 is its first
	part        []byte   // of a frame whose rest has not come yet
}

// take counts a frame that has just arrived.
func (b *inbox) take(frame []byte) {
	number, nanos, ok := readStamp(frame)
	switch {
	case !ok:
		b.tally.strange.Add(1)
		return
	case number%b.users != b.user:
		b.tally.strays.Add(1)
		return
	case !b.first(number / b.users):
		b.tally.doubled.Add(1)
		return
	}
	b.tally.received.Add(1)
	if nanos != 0 {
		delay := time.Duration(time.Now().UnixNano() - nanos)
		b.tally.mu.Lock()
		b.tally.delays = append(b.tally.delays, delay)
		b.tally.mu.Unlock()
	}
}

// first marks a push as seen, and says whether it was not before.
func (b *inbox) first(nth int64) bool {
	word, bit := int(nth/64), uint64(1)<<(nth%64)
	for len(b.seen) <= word {
		b.seen = append(b.seen, 0)
	}
	was := b.seen[word]&bit != 0
	b.seen[word] |= bit
	return !was
}
