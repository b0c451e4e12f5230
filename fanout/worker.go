package fanout

import (
	"context"
	"runtime"
	"sync"

	"rollcall/presence"
)

const (
	socketsATurn = 64 // of one user, before it is the next user's turn: some 0.3 ms of work
	turnsAtOnce  = 8  // that a worker gives before it lets other goroutines run
)

// worker hands jobs to sockets. Each user belongs to one worker, which does the user's jobs one after the
// other. Users who have something waiting take turns, so one with very many jobs or sockets holds up nobody
// else.
type worker struct {
	// static after construction
	room   *room
	start  func(*job) presence.Walk
	finish func(*job)

	filled signal // somebody waits for a turn

	mu sync.Mutex
	// mu guards the following
	backlogs map[string]*backlog // by user
	// first and last are the ends of the line of users who wait for a turn. The one who has it is not in the
	// line.
	first, last *backlog
}

// backlog is what waits for the sockets of one user.
type backlog struct {
	// owned by the worker's loop
	now     job // what is being done, if started
	started bool
	walk    presence.Walk // of now

	// guarded by the worker's mu
	user  string
	jobs  []job // from head on: those after now, oldest first
	head  int
	count int   // jobs, with now
	bytes int64 // their sizes
	next  *backlog
}

// freeBacklogs are empty, to be used again.
var freeBacklogs = sync.Pool{New: func() any { return new(backlog) }}

func newWorker(room *room, start func(*job) presence.Walk, finish func(*job)) *worker {
	return &worker{
		room: room, start: start, finish: finish,
		filled: newSignal(), backlogs: map[string]*backlog{},
	}
}

func (w *worker) run(ctx context.Context) {
	w.filled.loop(ctx, func() {
		for turns := 1; ctx.Err() == nil && w.step(); turns++ {
			if turns%turnsAtOnce == 0 {
				runtime.Gosched() // to others that have become ready: they may serve other users
			}
		}
	})
}

// put queues a job behind the others of its user. It returns false if there is no room. A kick needs no room
// of the user's: too many pushes must not keep anybody from being kicked.
func (w *worker) put(j job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.backlogs[j.user]
	need := j.size()
	if b != nil && !j.isKick() {
		if b.count >= userJobs {
			return false
		}
		need += b.bytes
	}
	if need > receiveBytes-w.room.bytes.Load() {
		return false
	}
	if b == nil {
		b = freeBacklogs.Get().(*backlog)
		b.user = j.user
		w.backlogs[j.user] = b
		w.lineUpLocked(b)
	}
	w.pushLocked(b, j)
	w.filled.set()
	return true
}

func (w *worker) pushLocked(b *backlog, j job) {
	w.room.add(&j)
	b.jobs = append(b.jobs, j)
	b.count++
	b.bytes += j.size()
}

// lineUpLocked gives a user the last place in the line.
func (w *worker) lineUpLocked(b *backlog) {
	if w.last == nil {
		w.first = b
	} else {
		w.last.next = b
	}
	w.last = b
}

// step gives the first user in the line a turn, which is one job or a part of it. It returns false if the
// line is empty.
func (w *worker) step() bool {
	b := w.beginTurn()
	if b == nil {
		return false
	}
	if !b.started {
		b.started, b.walk = true, w.start(&b.now)
	}
	done := b.walk.Next(socketsATurn)
	if done {
		w.finish(&b.now)
	} else {
		runtime.Gosched()
	}
	w.endTurn(b, done)
	return true
}

// beginTurn removes the first user from the line, and picks the job to do. It returns nil if nobody waits.
func (w *worker) beginTurn() *backlog {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.first
	if b == nil {
		return nil
	}
	if w.first, b.next = b.next, nil; w.first == nil {
		w.last = nil
	}
	if !b.started {
		b.now = b.popLocked()
	}
	return b
}

// endTurn ends a turn. A user who has more waiting goes to the end of the line.
func (w *worker) endTurn(b *backlog, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done {
		w.room.remove(&b.now)
		b.count--
		b.bytes -= b.now.size()
		b.now, b.started, b.walk = job{}, false, presence.Walk{}
	}
	if b.count > 0 {
		w.lineUpLocked(b)
		return
	}
	delete(w.backlogs, b.user)
	if b.user = ""; cap(b.jobs) <= 16 { // a long one is rarely needed again
		freeBacklogs.Put(b)
	}
}

func (b *backlog) popLocked() job {
	j := b.jobs[b.head]
	b.jobs[b.head] = job{} // frees the frame
	if b.head++; 2*b.head >= len(b.jobs) {
		rest := copy(b.jobs, b.jobs[b.head:])
		clear(b.jobs[rest:])
		b.jobs, b.head = b.jobs[:rest], 0
	}
	return j
}

// mark puts a mark behind everything that waits.
func (w *worker) mark(m *mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for user, b := range w.backlogs {
		m.open.Add(1)
		w.pushLocked(b, job{envelope: envelope{user: user}, mark: m})
	}
}
