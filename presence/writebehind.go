package presence

import (
	"context"
	"sync"
	"time"
)

// writeBehind is the set of users of one shard of whom Redis must be told, and the sockets and callers that
// wait for that.
//
//	         a socket comes or goes
//	                   │
//	                   ▼      take                    acknowledge
//	┌────────────────────┐         ┌────────────────────┐
//	│       dirty        │────────▶│      inFlight      │────────▶ written
//	└────────────────────┘         └────────────────────┘
//	     ▲          ▲                   │           │
//	     │          └───────────────────┘           │ deferUser: gone, but Redis
//	     │             requeue: the write failed    ▼ has just lost its data
//	     │                              ┌────────────────────┐
//	     └──────────────────────────────│      deferred      │
//	     requeueDeferred: lease renewed └────────────────────┘
//
// Each mark has a number, seq. All marks up to flushedTo are in Redis. To know that Redis has been told what
// is true now, remember the last seq and wait until flushedTo has reached it.
//
// Any goroutine marks. Only the run loop of the shard takes, acknowledges, defers and requeues.
type writeBehind struct {
	wake chan struct{} // wakes the run loop. Capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	dirty     map[string]dirtyUser // users who must be written; at most the local users and those just gone
	inFlight  map[string]dirtyUser // users who are being written; nil: none. The loop reads it without mu
	deferred  map[string]dirtyUser // users who are gone, while Redis was told that they are in a grace
	seq       uint64               // how many marks there were
	flushedTo uint64               // the marks up to this one are in Redis
	progress  chan struct{}        // closed and replaced when flushedTo grows
	behind    time.Time            // since when something is marked that is not in Redis; zero: nothing is

	// Sockets whose clients were told that they can't be reached yet, and the seq that makes them reachable.
	awaitingReachable map[*Socket]uint64
}

func (w *writeBehind) init() {
	w.wake = make(chan struct{}, 1)
	w.dirty, w.deferred = map[string]dirtyUser{}, map[string]dirtyUser{}
	w.progress = make(chan struct{})
	w.awaitingReachable = map[*Socket]uint64{}
}

// mark marks a user as dirty.
func (w *writeBehind) mark(user string, d dirtyUser) {
	w.mu.Lock()
	w.markLocked(user, d)
	w.mu.Unlock()
	w.signal()
}

// markAll marks users as dirty, all in the same way.
func (w *writeBehind) markAll(users []string, d dirtyUser) {
	w.mu.Lock()
	for _, user := range users {
		w.markLocked(user, d)
	}
	w.mu.Unlock()
	w.signal()
}

func (w *writeBehind) markLocked(user string, d dirtyUser) {
	if older, dirty := w.dirty[user]; dirty {
		d = mergeDirty(older, d)
	}
	w.dirty[user] = d
	w.seq++
	if w.behind.IsZero() {
		w.behind = time.Now()
	}
}

func (w *writeBehind) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// lastSeq is the number of the last mark.
func (w *writeBehind) lastSeq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

// awaitsWrite says whether a user has changes that are not in Redis.
func (w *writeBehind) awaitsWrite(user string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, dirty := w.dirty[user]
	_, inFlight := w.inFlight[user]
	_, deferred := w.deferred[user]
	return dirty || inFlight || deferred
}

// lag says how many users are dirty, and for how long the oldest change has not been in Redis.
func (w *writeBehind) lag(now time.Time) (dirty int, oldest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.behind.IsZero() {
		oldest = now.Sub(w.behind)
	}
	return len(w.dirty), oldest
}

// take moves the dirty users to those in flight. Marks from now on have a higher seq, and wait for the next
// take. The loop may range over the users in flight without mu, although other goroutines read them
// meanwhile: only the loop changes them, and it locks mu to do so.
func (w *writeBehind) take() (inFlight map[string]dirtyUser, seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dirty) > 0 { // else the empty map stays, for the next marks
		w.inFlight, w.dirty = w.dirty, map[string]dirtyUser{}
	}
	return w.inFlight, w.seq
}

// acknowledge takes a user off those in flight: Redis has been told.
func (w *writeBehind) acknowledge(user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.inFlight, user)
}

// requeue makes the users in flight dirty again: they could not be written.
func (w *writeBehind) requeue() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requeueLocked(w.inFlight)
}

// clearInFlight ends what take began. All users in flight have been acknowledged or requeued by then.
func (w *writeBehind) clearInFlight() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight = nil
}

// deferUser remembers a user for the next renewal of the lease.
func (w *writeBehind) deferUser(user string, d dirtyUser) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deferred[user] = d
}

// requeueDeferred makes the deferred users dirty again.
func (w *writeBehind) requeueDeferred() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requeueLocked(w.deferred)
	w.deferred = map[string]dirtyUser{}
}

func (w *writeBehind) requeueLocked(users map[string]dirtyUser) {
	for user, older := range users {
		if newer, dirty := w.dirty[user]; dirty {
			older = mergeDirty(older, newer)
		}
		w.dirty[user] = older
	}
}

// waitFlushed waits until the marks up to a seq are in Redis. It returns false if the context ends first.
func (w *writeBehind) waitFlushed(ctx context.Context, seq uint64) bool {
	for {
		w.mu.Lock()
		flushed, progress := w.flushedTo >= seq, w.progress
		w.mu.Unlock()
		if flushed {
			return true
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return false
		}
	}
}

// setFlushedTo makes known that the marks up to a seq are in Redis, also to the clients who wait for that.
func (w *writeBehind) setFlushedTo(seq uint64) {
	for _, socket := range w.advance(seq) {
		socket.Conn.Reachable()
	}
}

// advance returns the sockets that can be reached now.
func (w *writeBehind) advance(seq uint64) (reachable []*Socket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq <= w.flushedTo {
		return nil
	}
	w.flushedTo = seq
	w.behind = time.Time{}
	if len(w.dirty) > 0 {
		w.behind = time.Now() // marked while the others were written
	}
	close(w.progress)
	w.progress = make(chan struct{})
	for socket, awaited := range w.awaitingReachable {
		if awaited <= seq {
			delete(w.awaitingReachable, socket)
			reachable = append(reachable, socket)
		}
	}
	if len(w.awaitingReachable) == 0 && len(reachable) > 0 {
		w.awaitingReachable = map[*Socket]uint64{} // a map keeps the size that it had once
	}
	return reachable
}

// awaitReachable remembers a socket whose client must be told when the marks up to a seq are in Redis. It
// returns false if they are already.
func (w *writeBehind) awaitReachable(socket *Socket, seq uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flushedTo >= seq {
		return false
	}
	w.awaitingReachable[socket] = seq
	return true
}

// forget drops a socket that has closed.
func (w *writeBehind) forget(socket *Socket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.awaitingReachable, socket)
}
