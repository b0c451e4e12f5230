package fanout

import (
	"context"
	"sync/atomic"

	"rollcall/presence"
)

// emitter hands emits to this instance's own sockets, one after the other. Those that come while it does so share the next walk over the
// sockets, and one write to each. It works beside the receiver's workers, so that pushes need not wait for an emit to everybody. Whatever
// else looks at all sockets is done here too.
type emitter struct {
	// static after construction
	sockets *presence.Sockets

	queue  chan emission // capacity emitterQueue; never closed
	queued atomic.Int64  // bytes of what waits in it
}

// emission is an emit that waits for the emitter.
type emission struct {
	emit *presence.Emit // nil: a mark, to know that all before it is delivered
	walk func()         // something else that looks at all sockets; nil: there is nothing else to do
	done chan struct{}  // closed then; nil: nobody wants to know
}

// emitterQueue and receiverBytes are the most that may wait for the emitter.
const emitterQueue = 8192

// At most so many emits, and so many bytes unless it is one, share a walk: it is no longer for that, and a socket's buffers can take it.
const (
	emitsTogether     = 64
	emitBytesTogether = 64 << 10
)

func newEmitter(sockets *presence.Sockets) *emitter {
	return &emitter{sockets: sockets, queue: make(chan emission, emitterQueue)}
}

func (e *emitter) run(ctx context.Context) {
	for {
		select {
		case first := <-e.queue:
			together := e.gather(first)
			for _, one := range together {
				e.queued.Add(-one.bytes())
			}
			e.deliver(together)
		case <-ctx.Done():
			return
		}
	}
}

// gather takes those that wait behind the first.
func (e *emitter) gather(first emission) []emission {
	together := []emission{first}
	for bytes := first.bytes(); bytes < emitBytesTogether && len(together) < emitsTogether; {
		select {
		case next := <-e.queue:
			together = append(together, next)
			bytes += next.bytes()
		default:
			return together
		}
	}
	return together
}

func (e emission) bytes() int64 {
	if e.emit == nil {
		return 0
	}
	return int64(len(e.emit.Frame))
}

func (e *emitter) deliver(together []emission) {
	var emits []*presence.Emit
	for _, one := range together {
		if one.emit != nil {
			emits = append(emits, one.emit)
		}
	}
	if len(emits) > 0 {
		e.sockets.Emit(emits)
	}
	for _, one := range together {
		if one.walk != nil {
			one.walk()
		}
		if one.done != nil {
			close(one.done)
		}
	}
}

// enqueue has an emit delivered, or something else done, and does not wait. It says whether there was room.
func (e *emitter) enqueue(one emission) bool {
	if e.queued.Add(one.bytes()) <= receiverBytes {
		select {
		case e.queue <- one:
			return true
		default:
		}
	}
	e.queued.Add(-one.bytes())
	return false
}

// finish has an emit delivered, or nothing, and waits until that and all that came before is done, or the context ends.
func (e *emitter) finish(ctx context.Context, emit *presence.Emit) error {
	last := emission{emit: emit, done: make(chan struct{})}
	e.queued.Add(last.bytes()) // whatever the cap: the caller holds it anyway
	select {
	case e.queue <- last:
	case <-ctx.Done():
		e.queued.Add(-last.bytes())
		return context.Cause(ctx)
	}
	select {
	case <-last.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
