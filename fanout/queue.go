package fanout

import (
	"sync"
	"time"

	"rollcall/presence"
)

const (
	queuePushes = 8192     // pushes that wait in a queue: 32 full batches; more are refused with ErrBusy
	queueBytes  = 32 << 20 // and their frames
	// batchMost is how many pushes are in a batch: 128 are enough to share its cost, and 256 hold Redis up
	// for less than 1 ms.
	batchMost  = 256
	batchBytes = 1 << 20 // and their frames, at most twice that
)

// What clients cause, such as answers of handlers, has a quarter of a queue. When they fill it, the rest is
// still there for backends. One user has a quarter of that quarter, or one push, however large it is.
const (
	clientPushes = queuePushes / 4
	clientBytes  = queueBytes / 4
	userPushes   = clientPushes / 4
	userBytes    = clientBytes / 4
)

// shardQueue holds the pushes of one shard that wait for its next call of push.lua. A push is first admitted,
// which reserves room for it, then delivered to the local sockets, and then added: what is refused must not
// have reached anybody.
type shardQueue struct {
	filled    signal         // there is something to take
	admitting sync.WaitGroup // pushes that are admitted and not added yet; none is admitted after close

	mu sync.Mutex
	// mu guards the following
	pushes   []*pendingPush
	admitted int                      // pushes that are here, or about to be added
	bytes    int                      // of their frames; a shared one counts once
	shared   map[*presence.Shared]int // how many of them share a frame
	clients  usage                    // by what clients have caused
	byUser   map[string]usage         // by what the clients of each user have caused
	closed   bool
}

// usage is how much of a queue is in use.
type usage struct{ pushes, bytes int }

func (u usage) plus(pushes, bytes int) usage { return usage{u.pushes + pushes, u.bytes + bytes} }

func newShardQueue() *shardQueue {
	return &shardQueue{
		filled: newSignal(), shared: map[*presence.Shared]int{}, byUser: map[string]usage{},
	}
}

// admit reserves room for a push. If it succeeds, either add or withdraw must follow.
func (q *shardQueue) admit(p *pendingPush) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := q.newBytesLocked(p)
	switch {
	case q.closed:
		return ErrClosing
	case q.admitted >= queuePushes, q.bytes+size > queueBytes,
		p.push.FromClient && !q.clientFitsLocked(p, size):
		return ErrBusy
	}
	q.admitting.Add(1)
	q.countLocked(p, 1, size)
	if p.push.Shared != nil {
		q.shared[p.push.Shared]++
	}
	return nil
}

// clientFitsLocked reports whether there is room for a push that a client has caused.
func (q *shardQueue) clientFitsLocked(p *pendingPush, size int) bool {
	user := q.byUser[p.push.User]
	return q.clients.pushes < clientPushes && q.clients.bytes+size <= clientBytes &&
		user.pushes < userPushes && (user.pushes == 0 || user.bytes+size <= userBytes)
}

// newBytesLocked is how many bytes a push adds: none if its frame is here already.
func (q *shardQueue) newBytesLocked(p *pendingPush) int {
	if q.shared[p.push.Shared] > 0 {
		return 0
	}
	return len(p.push.Frame)
}

func (q *shardQueue) countLocked(p *pendingPush, pushes, bytes int) {
	q.admitted += pushes
	q.bytes += bytes
	if !p.push.FromClient {
		return
	}
	q.clients = q.clients.plus(pushes, bytes)
	user := q.byUser[p.push.User].plus(pushes, bytes)
	if q.byUser[p.push.User] = user; user.pushes == 0 {
		delete(q.byUser, p.push.User)
	}
}

// releaseLocked gives back the room of a push.
func (q *shardQueue) releaseLocked(p *pendingPush) {
	if shared := p.push.Shared; shared != nil {
		if q.shared[shared]--; q.shared[shared] == 0 {
			delete(q.shared, shared)
		}
	}
	q.countLocked(p, -1, -q.newBytesLocked(p))
}

// add puts an admitted push behind the others.
func (q *shardQueue) add(p *pendingPush) {
	defer q.admitting.Done()
	q.mu.Lock()
	q.pushes = append(q.pushes, p)
	q.mu.Unlock()
	q.filled.set()
}

// withdraw gives up an admitted push before it was added.
func (q *shardQueue) withdraw(p *pendingPush) {
	defer q.admitting.Done()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.releaseLocked(p)
}

// take removes and returns the next batch. It skips pushes whose callers gave up, or wait no longer. It
// returns an empty batch only if the queue is empty.
func (q *shardQueue) take(now time.Time) []*pendingPush {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := make([]*pendingPush, 0, min(len(q.pushes), batchMost))
	taken, bytes := 0, 0
	var before *presence.Shared // of the last push in the batch: a frame that follows itself is sent once
	for taken < len(q.pushes) && len(batch) < batchMost && bytes < batchBytes {
		p := q.pushes[taken]
		taken++
		q.releaseLocked(p)
		if !p.markSent(now) {
			continue
		}
		batch = append(batch, p)
		if p.push.Shared == nil || p.push.Shared != before {
			bytes += len(p.push.Frame)
		}
		before = p.push.Shared
	}
	rest := copy(q.pushes, q.pushes[taken:])
	clear(q.pushes[rest:]) // frees the frames
	q.pushes = q.pushes[:rest]
	return batch
}

// giveUpLate gives up pushes whose callers' time is over. They stay until they would be taken.
func (q *shardQueue) giveUpLate(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.pushes {
		p.giveUpIfLate(now)
	}
}

// close refuses what comes from now on, and waits until everything that was admitted is added.
func (q *shardQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.admitting.Wait()
}

func (q *shardQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pushes)
}
