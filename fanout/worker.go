package fanout

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rollcall/presence"
)

// The most that may wait for the sockets here. What finds no room is dropped and counted: to wait would stall
// the subscription, and with it everybody. All that waits may have receiverBytes; the pushes of one user, as
// much as the others have left free. So a user to whom too much is pushed loses pushes of his own, and
// however many such users there are, some room stays free for the rest.
const (
	receiverBytes = 64 << 20
	userJobs      = 8192
	jobBytes      = 256 // what a job needs besides its frame
)

// socketsATurn is how many sockets of one user are written to before it is the next user's turn: some 0.3 ms
// of work.
const socketsATurn = 64

// turnsAtOnce is how many turns a worker gives before it lets other goroutines run.
const turnsAtOnce = 8

// job is a push or a kick that waits for the sockets of one user.
type job struct {
	envelope
	until  time.Time        // when the sender's wait for a report ends; not set if there is none
	common *commonFrame     // where the frame comes from; nil: the job's own
	only   *presence.Socket // of kindKickSocket
	passed *barrier         // a mark instead of a job; nil: it is a job
}

// commonFrame is a frame that came once for many users. It counts once, until the last job with it is done.
type commonFrame struct {
	presence.Shared
	frame   []byte
	holders atomic.Int64
}

// size is what a job counts for its user.
func (j *job) size() int64 { return jobBytes + int64(len(j.user)+len(j.frame)) }

// own is the part of the size that the job shares with no other.
func (j *job) own() int64 {
	if j.common != nil {
		return j.size() - int64(len(j.frame))
	}
	return j.size()
}

func (j *job) isKick() bool { return j.kind == kindKickUser || j.kind == kindKickSocket }

// room counts what waits for all workers.
type room struct {
	jobs, bytes atomic.Int64
}

func (r *room) take(j *job) {
	r.jobs.Add(1)
	r.bytes.Add(j.own())
	r.hold(j.common)
}

func (r *room) release(j *job) {
	r.jobs.Add(-1)
	r.bytes.Add(-j.own())
	r.letGo(j.common)
}

func (r *room) hold(common *commonFrame) {
	if common != nil && common.holders.Add(1) == 1 {
		r.bytes.Add(int64(len(common.frame)))
	}
}

func (r *room) letGo(common *commonFrame) {
	if common != nil && common.holders.Add(-1) == 0 {
		r.bytes.Add(-int64(len(common.frame)))
	}
}

// worker brings jobs to sockets. Each user belongs to one worker, which does the user's jobs one after the
// other. Users who have something waiting take turns.
type worker struct {
	// static after construction
	room *room
	// begin starts a job, and finish is told that it is done.
	begin  func(*job) presence.Walk
	finish func(*job)

	wake chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	waiting     map[string]*backlog // of users who have a job; never empty ones
	first, last *backlog            // in turn, besides the one whose turn it is
	idle        bool                // the worker waits to be woken
}

// backlog is what waits for the sockets of one user.
type backlog struct {
	// owned by the worker
	now      job // being done, if begun
	begun    bool
	delivery presence.Walk // of now

	// guarded by the worker's mu
	user  string
	jobs  []job // from head on: those after now, first in, first out
	head  int
	count int   // jobs, with now
	bytes int64 // their sizes
	next  *backlog
}

// backlogs are empty ones, to be used again.
var backlogs = sync.Pool{New: func() any { return new(backlog) }}

func newWorker(room *room, begin func(*job) presence.Walk, finish func(*job)) *worker {
	return &worker{
		room: room, begin: begin, finish: finish,
		wake: make(chan struct{}, 1), waiting: map[string]*backlog{},
	}
}

func (w *worker) run(ctx context.Context) {
	for {
		for turns := 1; ctx.Err() == nil && w.step(); turns++ {
			if turns%turnsAtOnce == 0 {
				runtime.Gosched() // to whoever has become ready meanwhile: they may be about other users
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}

// put has a job done, behind the others of its user, and says whether there was room. A kick needs no room of
// the user's: too many pushes must not keep anybody from being kicked.
func (w *worker) put(j job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.waiting[j.user]
	need := j.size()
	if b != nil && !j.isKick() {
		if b.count >= userJobs {
			return false
		}
		need += b.bytes
	}
	if need > receiverBytes-w.room.bytes.Load() {
		return false
	}
	w.room.take(&j)
	if b == nil {
		b = backlogs.Get().(*backlog)
		b.user = j.user
		w.waiting[j.user] = b
		w.lineUpLocked(b)
	}
	b.putLocked(j)
	if w.idle {
		w.idle = false
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (b *backlog) putLocked(j job) {
	b.jobs = append(b.jobs, j)
	b.count++
	b.bytes += j.size()
}

// lineUpLocked gives a user the last place of those who wait for their turn.
func (w *worker) lineUpLocked(b *backlog) {
	if w.last == nil {
		w.first = b
	} else {
		w.last.next = b
	}
	w.last = b
}

// step gives the first user a turn, which is one job or a part of it. It says whether there was a user.
func (w *worker) step() bool {
	b := w.take()
	if b == nil {
		return false
	}
	if !b.begun {
		b.begun, b.delivery = true, w.begin(&b.now)
	}
	over := b.delivery.Next(socketsATurn)
	if over {
		w.finish(&b.now)
	} else {
		runtime.Gosched()
	}
	w.putBack(b, over)
	return true
}

// take takes the user whose turn it is out of the line, with the job to do; nil: nobody waits.
func (w *worker) take() *backlog {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.first
	if b == nil {
		w.idle = true
		return nil
	}
	if w.first, b.next = b.next, nil; w.first == nil {
		w.last = nil
	}
	if !b.begun {
		b.now = b.popLocked()
	}
	return b
}

// putBack ends a turn. Who has more waiting gets another.
func (w *worker) putBack(b *backlog, over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if over {
		w.room.release(&b.now)
		b.count--
		b.bytes -= b.now.size()
		b.now, b.begun, b.delivery = job{}, false, presence.Walk{}
	}
	if b.count > 0 {
		w.lineUpLocked(b)
		return
	}
	delete(w.waiting, b.user)
	if b.user = ""; cap(b.jobs) <= 16 { // a long one is rarely needed again
		backlogs.Put(b)
	}
}

func (b *backlog) popLocked() job {
	j := b.jobs[b.head]
	b.jobs[b.head] = job{} // lets go of the frame
	if b.head++; 2*b.head >= len(b.jobs) {
		left := copy(b.jobs, b.jobs[b.head:])
		clear(b.jobs[left:])
		b.jobs, b.head = b.jobs[:left], 0
	}
	return j
}

// barrier is passed when all that waited when it was set up is done.
type barrier struct {
	open   atomic.Int64
	passed chan struct{} // closed then
}

// newBarrier marks what waits for workers.
func newBarrier(workers []*worker) *barrier {
	b := &barrier{passed: make(chan struct{})}
	b.open.Store(1) // until all marks are set
	for _, w := range workers {
		w.mark(b)
	}
	b.pass()
	return b
}

func (b *barrier) pass() {
	if b.open.Add(-1) == 0 {
		close(b.passed)
	}
}

// mark puts a mark behind all that waits.
func (w *worker) mark(b *barrier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for user, waits := range w.waiting {
		mark := job{envelope: envelope{user: user}, passed: b}
		b.open.Add(1)
		w.room.take(&mark)
		waits.putLocked(mark)
	}
}
