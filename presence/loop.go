package presence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"rollcall/lua"
)

// run is the loop: it flushes what is dirty, renews the lease, and does nothing else. One call is under way at a time.
func (s *shard) run(ctx context.Context) {
	renew := time.NewTicker(s.mirror.redis.RenewEvery())
	defer renew.Stop()
	defer s.sweeps.Wait()
	due := false
	for {
		err := s.step(ctx, due)
		due = false
		if ctx.Err() != nil {
			s.leave(ctx)
			return
		}
		var retry <-chan time.Time
		wake := s.wake
		if err != nil {
			s.failures++
			s.mirror.errors.Add(1)
			retry, wake = time.After(backoff(s.failures)), nil // wait it out, however much happens meanwhile
			if errors.Is(err, ErrRedisFull) {
				s.full.Store(true)
			}
			s.mirror.log.Warn("mirror", "shard", s.index, "failures", s.failures, "error", err)
		} else {
			s.failures = 0
		}
		select {
		case <-wake:
		case <-retry:
			due = true
		case <-renew.C:
			due = true
		case <-ctx.Done():
		}
	}
}

// backoff grows with the failures in a row, and its jitter keeps instances from coming back together.
func backoff(failures int) time.Duration {
	pause := min(backoffMin<<min(failures-1, 10), backoffMax)
	return pause/2 + rand.N(pause/2+1)
}

// step does what there is to do now: make sure of the lease, write what is dirty, and condemn tokens of the past.
func (s *shard) step(ctx context.Context, renewDue bool) error {
	if s.fresh {
		if err := s.openLease(ctx); err != nil {
			return err
		}
	}
	if s.unsettled {
		if err := s.settleVersion(ctx); err != nil {
			return s.orRaiseEpoch(err)
		}
	}
	if renewDue {
		s.takeStaying()
	}
	if err := s.flush(ctx); err != nil {
		return s.orRaiseEpoch(err)
	}
	if renewDue || len(s.retired) > 0 {
		return s.orRaiseEpoch(s.renew(ctx))
	}
	return nil
}

// orRaiseEpoch answers lua.ErrStaleLease with a new epoch, under which all local users are written again, and
// passes every error on.
func (s *shard) orRaiseEpoch(err error) error {
	if !errors.Is(err, lua.ErrStaleLease) {
		return err
	}
	s.mirror.remirrors.Add(1)
	s.retired = append(s.retired, s.token.String())
	s.token.Epoch++
	s.version, s.unsettled, s.fresh = 0, false, true
	s.believedUntil.Store(0)
	s.refilling.Store(true)
	s.lost.Store(int64(time.Since(s.mirror.started)))
	s.signal() // at once, if this is the first failure in a row
	return err
}

// openLease opens the lease of a new token, and marks every local user to be written under it.
func (s *shard) openLease(ctx context.Context) error {
	started := time.Now()
	answer, err := s.mirror.redis.lease(ctx, s.index, s.token, "", s.mirror.redis.Lease, nil)
	if errors.Is(err, lua.ErrStaleLease) {
		s.token.Epoch++ // an earlier attempt got through after all: its token is as good as unused
		return err
	}
	if err != nil {
		return err
	}
	s.believe(started)
	s.learn(answer)
	s.fresh = false
	s.mu.Lock()
	s.current = s.token.String()
	s.mu.Unlock()
	s.againAll()
	return nil
}

// againAll marks all local users of the shard. Redis has heard of them, and may have lost what it had.
func (s *shard) againAll() {
	users := s.mirror.sockets.appendUsers(nil, s.index)
	s.mu.Lock()
	for _, user := range users {
		s.againLocked(user, true)
	}
	s.mu.Unlock()
	s.signal()
}

// learn keeps what a renewal of the lease tells about Redis and the other instances.
func (s *shard) learn(answer leaseAnswer) {
	if full := answer.full; s.full.Swap(full) != full {
		s.mirror.log.Warn("redis is full, or no longer", "shard", s.index, "full", full)
	}
	if s.index == 0 {
		s.mirror.live.Store(int64(answer.leases.liveInstances(answer.now)))
	}
}

func (s *shard) believe(started time.Time) {
	s.believedUntil.Store(int64(started.Sub(s.mirror.started) + s.mirror.redis.Lease))
}

// settleVersion finds out whether the last write got through. If it was only delayed, its version keeps it from ever taking effect
// after the next one.
func (s *shard) settleVersion(ctx context.Context) error {
	version, err := s.mirror.redis.version(ctx, s.index, s.token)
	if err != nil {
		return err
	}
	if version != s.version && version != s.version+1 {
		return lua.ErrStaleLease
	}
	s.version, s.unsettled = version, false
	return nil
}

// renew renews the lease, condemns retired tokens, and sweeps if it is this token's turn.
func (s *shard) renew(ctx context.Context) error {
	started := time.Now()
	answer, err := s.mirror.redis.lease(ctx, s.index, s.token, strconv.FormatInt(s.version, 10), s.mirror.redis.Lease, s.retired)
	if err != nil {
		return err
	}
	s.believe(started)
	s.learn(answer)
	s.heartbeats.Add(1)
	s.retired = nil
	s.refilling.Store(false)
	grace := s.mirror.redis.Grace
	s.sweeper.Store(answer.leases.Sweeper(answer.now, grace) == s.token.String())
	if s.sweeper.Load() && answer.leases.AnyDead(answer.now, grace) {
		s.sweeps.Go(func() { s.sweep(ctx) })
	}
	if s.index == 0 {
		shards, err := s.mirror.announce(ctx)
		if errors.Is(err, lua.ErrOtherShards) { // which says nothing of the lease
			return fmt.Errorf("presence: the others use %d shards now, and this instance %d: they do not find its users; all must use the same number",
				shards, len(s.mirror.shards))
		}
		return err
	}
	return nil
}

// sweep makes one pass through the owners, unless one is under way.
func (s *shard) sweep(ctx context.Context) {
	if !s.sweeping.CompareAndSwap(false, true) {
		return
	}
	defer s.sweeping.Store(false)
	var total int64
	for step := (&sweepStep{cursor: "0"}); step != nil; {
		next, dropped, err := s.mirror.redis.sweep(ctx, s.index, step)
		if err != nil {
			s.mirror.log.Warn("sweep", "shard", s.index, "error", err) // whoever is the sweeper then begins again
			return
		}
		step, total = next, total+dropped
	}
	if total > 0 {
		s.mirror.log.Info("swept", "shard", s.index, "users", total)
	}
}

// leave writes what is still dirty and ends the lease. If that fails, the lease lapses by itself: a crash, only a polite one.
func (s *shard) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := s.step(ctx, false)
	if err == nil {
		var untold error
		if s.index == 0 {
			_, untold = s.mirror.announce(ctx) // that no socket is left; the lease ends whether or not it could be told
		}
		_, err = s.mirror.redis.lease(ctx, s.index, s.token, strconv.FormatInt(s.version, 10), 0, nil)
		err = errors.Join(err, untold)
	}
	if err != nil {
		s.mirror.log.Warn("leaving without ending the lease", "shard", s.index, "error", err)
	}
}
