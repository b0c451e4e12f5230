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
	users map[string]*userQueue // by user
	// first and last are the ends of the line of users who wait for a turn. The one who has it is not in the
	// line.
	first, last *userQueue
}

// userQueue is what waits for the sockets of one user.
type userQueue struct {
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
	next  *userQueue
}

// freeUserQueues are empty, to be used again.
var freeUserQueues = sync.Pool{New: func() any { return new(userQueue) }}

func newWorker(room *room, start func(*job) presence.Walk, finish func(*job)) *worker {
	return &worker{
		room: room, start: start, finish: finish,
		filled: newSignal(), users: map[string]*userQueue{},
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
	q := w.users[j.user]
	need := j.size()
	if q != nil && !j.isKick() {
		if q.count >= userJobs {
			return false
		}
		need += q.bytes
	}
	if need > receiveBytes-w.room.bytes.Load() {
		return false
	}
	if q == nil {
		q = freeUserQueues.Get().(*userQueue)
		q.user = j.user
		w.users[j.user] = q
		w.lineUpLocked(q)
	}
	w.pushLocked(q, j)
	w.filled.set()
	return true
}

func (w *worker) pushLocked(q *userQueue, j job) {
	w.room.add(&j)
	q.jobs = append(q.jobs, j)
	q.count++
	q.bytes += j.size()
}

// lineUpLocked gives a user the last place in the line.
func (w *worker) lineUpLocked(q *userQueue) {
	if w.last == nil {
		w.first = q
	} else {
		w.last.next = q
	}
	w.last = q
}

// step gives the first user in the line a turn, which is one job or a part of it. It returns false if the
// line is empty.
func (w *worker) step() bool {
	q := w.beginTurn()
	if q == nil {
		return false
	}
	if !q.started {
		q.started, q.walk = true, w.start(&q.now)
	}
	done := q.walk.Next(socketsATurn)
	if done {
		w.finish(&q.now)
	} else {
		runtime.Gosched()
	}
	w.endTurn(q, done)
	return true
}

// beginTurn removes the first user from the line, and picks the job to do. It returns nil if nobody waits.
func (w *worker) beginTurn() *userQueue {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.first
	if q == nil {
		return nil
	}
	if w.first, q.next = q.next, nil; w.first == nil {
		w.last = nil
	}
	if !q.started {
		q.now = q.popLocked()
	}
	return q
}

// endTurn ends a turn. A user who has more waiting goes to the end of the line.
func (w *worker) endTurn(q *userQueue, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done {
		w.room.remove(&q.now)
		q.count--
		q.bytes -= q.now.size()
		q.now, q.started, q.walk = job{}, false, presence.Walk{}
	}
	if q.count > 0 {
		w.lineUpLocked(q)
		return
	}
	delete(w.users, q.user)
	if q.user = ""; cap(q.jobs) <= 16 { // a long one is rarely needed again
		freeUserQueues.Put(q)
	}
}

func (q *userQueue) popLocked() job {
	j := q.jobs[q.head]
	q.jobs[q.head] = job{} // frees the frame
	if q.head++; 2*q.head >= len(q.jobs) {
		rest := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[rest:])
		q.jobs, q.head = q.jobs[:rest], 0
	}
	return j
}

// mark puts a mark behind everything that waits.
func (w *worker) mark(m *mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for user, q := range w.users {
		m.open.Add(1)
		w.pushLocked(q, job{envelope: envelope{user: user}, mark: m})
	}
}
