package fanout

import (
	"context"
	"sync/atomic"

	"rollcall/presence"
)

// emitterQueue is how many emits may wait for the emitter, besides receiveBytes of them.
const emitterQueue = 8192

// emitBatch and emitBatchBytes are how many emits, and how many bytes, may share a walk over the sockets. (A
// single emit may have more bytes.) So much fits into the buffer of a socket, so the walk takes hardly
// longer than with one emit.
const (
	emitBatch      = 64
	emitBatchBytes = 64 << 10
)

// emitter hands emits to this instance's own sockets, one after the other. Emits that come while it does so
// share the next walk over the sockets, and one write to each. It works beside the workers, so that pushes
// need not wait for an emit to everybody. Whatever else must look at all sockets is done here too.
type emitter struct {
	// static after construction
	sockets *presence.Sockets

	queue  chan emitJob // capacity emitterQueue; never closed
	queued atomic.Int64 // bytes of what waits in it
}

// emitJob is something that waits for the emitter. With done alone it is a mark: when done is closed,
// everything before it is delivered.
type emitJob struct {
	emit *presence.Emit
	scan func()        // something else that looks at all sockets
	done chan struct{} // closed when it is done; nil: nobody waits for that
}

func (j emitJob) bytes() int64 {
	if j.emit == nil {
		return 0
	}
	return int64(len(j.emit.Frame))
}

func newEmitter(sockets *presence.Sockets) *emitter {
	return &emitter{sockets: sockets, queue: make(chan emitJob, emitterQueue)}
}

func (e *emitter) run(ctx context.Context) {
	for {
		select {
		case first := <-e.queue:
			e.deliver(e.batch(first))
		case <-ctx.Done():
			return
		}
	}
}

// batch takes the jobs that wait behind the first.
func (e *emitter) batch(first emitJob) []emitJob {
	batch, bytes := []emitJob{first}, first.bytes()
	defer func() { e.queued.Add(-bytes) }()
	for bytes < emitBatchBytes && len(batch) < emitBatch {
		select {
		case next := <-e.queue:
			batch = append(batch, next)
			bytes += next.bytes()
		default:
			return batch
		}
	}
	return batch
}

func (e *emitter) deliver(batch []emitJob) {
	var emits []*presence.Emit
	for _, job := range batch {
		if job.emit != nil {
			emits = append(emits, job.emit)
		}
	}
	if len(emits) > 0 {
		e.sockets.Emit(emits)
	}
	for _, job := range batch {
		if job.scan != nil {
			job.scan()
		}
		if job.done != nil {
			close(job.done)
		}
	}
}

// enqueue queues a job and does not wait. It returns false if there is no room.
func (e *emitter) enqueue(job emitJob) bool {
	if e.queued.Add(job.bytes()) <= receiveBytes {
		select {
		case e.queue <- job:
			return true
		default:
		}
	}
	e.queued.Add(-job.bytes())
	return false
}

// deliverAndWait delivers an emit, or nothing, and waits until that and everything before it is done, or the
// context ends.
func (e *emitter) deliverAndWait(ctx context.Context, emit *presence.Emit) error {
	job := emitJob{emit: emit, done: make(chan struct{})}
	e.queued.Add(job.bytes()) // whatever the cap: the caller holds the frame anyway
	select {
	case e.queue <- job:
	case <-ctx.Done():
		e.queued.Add(-job.bytes())
		return context.Cause(ctx)
	}
	select {
	case <-job.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
