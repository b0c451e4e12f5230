package fanout

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"rollcall/lua"
	"rollcall/presence"
)

const (
	settleAgain   = 250 * time.Millisecond // after Redis could not be told
	unsettledMost = 4 << 20                // bytes of settlements that wait for Redis; one that finds no room is dropped and counted
)

// settlement is what became of a claimed request.
type settlement struct {
	name, claim string
	answer      string    // empty: nothing was done, and it may come again
	until       time.Time // when Redis forgets the claim by itself
}

func (s settlement) size() int { return claimBytes + len(s.answer) }

// settler tells Redis what became of claimed requests. If Redis is away it goes on trying: a claim under which nothing was done must not
// keep a request from coming again.
type settler struct {
	// static after construction
	redis   presence.Redis
	log     *slog.Logger
	dropped atomic.Int64 // settlements: until Redis forgets the claim, repeats are told that the outcome was lost

	wake chan struct{} // capacity 1: one signal is enough; never closed

	mu sync.Mutex
	// mu guards the following
	waiting []settlement
	bytes   int
}

func newSettler(redis presence.Redis, log *slog.Logger) *settler {
	return &settler{redis: redis, log: log, wake: make(chan struct{}, 1)}
}

// settle tells Redis now, and later if that fails. It goes on if the caller has gone away: or a repeat would hear nothing.
func (s *settler) settle(ctx context.Context, one settlement) {
	if err := s.tell(context.WithoutCancel(ctx), one); err != nil {
		s.log.Warn("remember an answer", "error", err)
		s.later(one)
	}
}

// later tells Redis as soon as it can be told.
func (s *settler) later(one settlement) {
	one.until = time.Now().Add(OnceFor)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+one.size() > unsettledMost {
		s.dropped.Add(1)
		return
	}
	s.waiting = append(s.waiting, one)
	s.bytes += one.size()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *settler) tell(ctx context.Context, one settlement) error {
	ctx, cancel := context.WithTimeout(ctx, s.redis.Timeout)
	defer cancel()
	_, err := lua.Check(lua.Settle.Exec(ctx, s.redis.Client, []string{one.name}, []string{one.claim, one.answer, onceFor}))
	if errors.Is(err, lua.ErrNotYours) {
		return nil // there is nothing to tell any more
	}
	return err
}

// run tells until the context ends.
func (s *settler) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		for left := s.round(ctx); left > 0 && ctx.Err() == nil; left = s.round(ctx) {
			pause(ctx, settleAgain)
		}
	}
}

// round tells each once, for a shard that can't be told must not keep those of others waiting, and returns how many are left.
func (s *settler) round(ctx context.Context) (left int) {
	s.mu.Lock()
	all := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for i, one := range all {
		err := s.tell(ctx, one)
		s.mu.Lock()
		if err != nil && time.Now().Before(one.until) {
			s.waiting = append(s.waiting, one)
		} else {
			s.bytes -= one.size()
			if err != nil {
				s.dropped.Add(1)
			}
		}
		s.mu.Unlock()
		all[i] = settlement{} // lets go of the answer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}
