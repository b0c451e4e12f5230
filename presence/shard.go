package presence

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	mirrorBatch = 512                    // users a call: it holds Redis up for less than 2 ms, and more hardly raises throughput
	backoffMin  = 50 * time.Millisecond  // after the first error
	backoffMax  = 1 * time.Second        // after many
	endTimeout  = 500 * time.Millisecond // for the last words of an instance that leaves
)

// shard mirrors the local users of one shard.
type shard struct {
	// static after construction
	index  int
	mirror *Mirror

	// owned by the run loop
	token     Incarnation
	version   int64    // mirror writes that Redis confirmed under this token
	unsettled bool     // a write's effect is unknown: the version must be read before the next
	fresh     bool     // the token has no lease yet
	retired   []string // earlier tokens, to be condemned after the next flush: then all users are written under this one
	failures  int      // in a row

	believedUntil atomic.Int64 // ns since the mirror was made
	lost          atomic.Int64 // when Redis was last found not to hold the lease, ns since the mirror was made; 0: never
	refilling     atomic.Bool  // from a loss until all users are there again
	full          atomic.Bool  // Redis had no room for more when the lease was last renewed, or refused to write for that reason
	heartbeats    atomic.Int64 // sent since they were last asked about
	sweeper       atomic.Bool  // it was this token's turn to sweep when last renewed
	sweeping      atomic.Bool
	sweeps        sync.WaitGroup

	wake chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	current  string          // the token, for others than the run loop
	behind   time.Time       // since when something is marked that is not in Redis; zero: nothing is
	dirty    map[string]mark // users whose count must be written; at most the local users and those just gone
	flying   map[string]mark // users who are being written; nil: nobody is. Only the run loop changes it, so it reads it without the lock
	staying  map[string]mark // users who are gone, but Redis was told that they are in their grace: see tooSoonToGo
	marks    uint64          // how often a user was marked
	settled  uint64          // the marks up to here are in Redis
	progress chan struct{}   // closed and replaced when settled grows

	// sockets whose clients were told that they can't be reached, and must be told when they can: when the marks up to each one's are settled
	untold map[*Socket]uint64
}

// mark is what there is to tell of a dirty user who has no sockets, and whether Redis had heard of the user before.
type mark struct {
	left  bool      // closed the last socket on purpose
	at    time.Time // when the last socket went; zero: the user is marked although nothing has changed
	known bool      // was mirrored before
	kept  int       // epoch under which Redis was told that the user is kept; 0: none
}

func newShard(index int, m *Mirror) *shard {
	return &shard{
		index: index, mirror: m, token: Incarnation{m.instance, 1}, fresh: true,
		wake: make(chan struct{}, 1), dirty: map[string]mark{}, staying: map[string]mark{}, untold: map[*Socket]uint64{},
		progress: make(chan struct{}),
	}
}

// touch marks a user as to be written, because something changed.
func (s *shard) touch(user string, came, left bool, at time.Time) {
	s.mu.Lock()
	older, marked := s.dirty[user]
	known := !came
	if marked { // what is marked was not written yet
		known = older.known
	}
	s.dirty[user] = mark{left: left, at: at, known: known}
	s.markedLocked()
	s.mu.Unlock()
	s.signal()
}

// again marks a user as to be written once more, although nothing has changed. known: Redis has heard of this user, and may have
// lost what it had.
func (s *shard) again(user string, known bool) {
	s.mu.Lock()
	s.againLocked(user, known)
	s.mu.Unlock()
	s.signal()
}

func (s *shard) againLocked(user string, known bool) {
	if _, marked := s.dirty[user]; !marked { // what is marked was not written yet
		s.dirty[user] = mark{known: known}
	}
	s.markedLocked()
}

func (s *shard) markedLocked() {
	s.marks++
	if s.behind.IsZero() {
		s.behind = time.Now()
	}
}

func (s *shard) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *shard) marked() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks
}

func (s *shard) isDirty(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, dirty := s.dirty[user]
	_, flying := s.flying[user]
	_, staying := s.staying[user]
	return dirty || flying || staying
}

func (s *shard) currentToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// waitSettled waits until everything marked up to a mark is in Redis.
func (s *shard) waitSettled(ctx context.Context, mark uint64) bool {
	for {
		s.mu.Lock()
		settled, progress := s.settled >= mark, s.progress
		s.mu.Unlock()
		if settled {
			return true
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return false
		}
	}
}

// holds says whether Redis held this instance's own lease at the moment of an answer. If not, it has lost more than that.
func (s *shard) holds(leases Leases, now int64) bool {
	return leases.Status(s.currentToken(), now, s.mirror.redis.Grace) == Live
}

// recentLoss says whether Redis was found not to hold the lease, and does not hold all of our users again, or other instances may not have
// noticed yet that theirs is lost too.
func (s *shard) recentLoss() bool {
	return s.refilling.Load() || s.lostWithin(s.mirror.redis.RenewEvery()+backoffMax)
}

// tooSoonToGo says whether others may still have to tell Redis, which has lost it, that they have a user whom we have no more. Until
// they had the time of a grace for that, nobody goes.
func (s *shard) tooSoonToGo() bool {
	return s.recentLoss() || s.lostWithin(s.mirror.redis.Grace)
}

func (s *shard) lostWithin(d time.Duration) bool {
	lost := s.lost.Load()
	return lost > 0 && time.Since(s.mirror.started) < time.Duration(lost)+d
}

// believed says whether the lease certainly still holds. The local clock is only ever used to trust it for less long than Redis
// does: the time counts from before the renewal was sent.
func (s *shard) believed(now time.Time) bool {
	return now.Sub(s.mirror.started) < time.Duration(s.believedUntil.Load())
}

// settle makes known that everything marked up to a mark is in Redis, also to the clients who wait for that.
func (s *shard) settle(mark uint64) {
	for _, socket := range s.settleMarks(mark) {
		socket.Conn.Reachable()
	}
}

// settleMarks returns the untold sockets that can be reached now.
func (s *shard) settleMarks(mark uint64) (reachable []*Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mark <= s.settled {
		return nil
	}
	s.settled = mark
	s.behind = time.Time{}
	if len(s.dirty) > 0 {
		s.behind = time.Now() // it came during the flush
	}
	close(s.progress)
	s.progress = make(chan struct{})
	for socket, mark := range s.untold {
		if mark <= s.settled {
			delete(s.untold, socket)
			reachable = append(reachable, socket)
		}
	}
	if len(s.untold) == 0 && len(reachable) > 0 {
		s.untold = map[*Socket]uint64{} // a map keeps the size that it had once
	}
	return reachable
}

// tellLater has a socket's client told when everything up to a mark is settled; false if it is.
func (s *shard) tellLater(socket *Socket, mark uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled >= mark {
		return false
	}
	s.untold[socket] = mark
	return true
}

func (s *shard) tellNoMore(socket *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.untold, socket)
}
