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

// run is the loop of a shard. It tells Redis of dirty users and renews the lease; one call is under way at a
// time. It returns when the context ends, and has ended the lease by then.
func (s *shard) run(ctx context.Context) {
	renew := time.NewTicker(s.mirror.redis.RenewEvery())
	defer renew.Stop()
	defer s.sweeps.Wait()
	renewDue := false
	for {
		err := s.step(ctx, renewDue)
		if ctx.Err() != nil {
			s.leave(ctx)
			return
		}
		wake, retry := s.next(err)
		renewDue = false
		select {
		case <-wake:
		case <-retry:
			renewDue = true // the call that failed may have been a renewal
		case <-renew.C:
			renewDue = true
		case <-ctx.Done():
		}
	}
}

// next says what the loop waits for after a step, besides the next renewal: for the next mark or, after an
// error, for the end of a pause. It counts and logs the error.
func (s *shard) next(err error) (wake <-chan struct{}, retry <-chan time.Time) {
	if err == nil {
		s.failures = 0
		return s.writes.wake, nil
	}
	s.failures++
	s.mirror.errors.Add(1)
	if errors.Is(err, ErrRedisFull) {
		s.full.Store(true)
	}
	s.mirror.log.Warn("mirror", "shard", s.index, "failures", s.failures, "error", err)
	return nil, time.After(backoff(s.failures))
}

// backoff is the pause after so many failures in a row. Its jitter keeps instances from coming back together.
func backoff(failures int) time.Duration {
	pause := min(backoffMin<<min(failures-1, 10), backoffMax)
	return pause/2 + rand.N(pause/2+1)
}

// step does what there is to do now: it makes sure of the lease, tells Redis of dirty users, and renews the
// lease if that is due. An answer that Redis does not have the lease leads to a new epoch.
func (s *shard) step(ctx context.Context, renewDue bool) error {
	if state := s.lease(); state == leaseStarting || state == leaseLost {
		if err := s.openLease(ctx); err != nil {
			return err
		}
	}
	err := s.mirrorAndRenew(ctx, renewDue)
	if errors.Is(err, lua.ErrStaleLease) {
		s.raiseEpoch()
	}
	return err
}

func (s *shard) mirrorAndRenew(ctx context.Context, renewDue bool) error {
	if s.versionUncertain {
		if err := s.confirmVersion(ctx); err != nil {
			return err
		}
	}
	if renewDue {
		s.writes.requeueDeferred()
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	if renewDue || s.lease() == leaseRefilling {
		return s.renew(ctx)
	}
	return nil
}

// raiseEpoch gives the lease up for lost. In the next step, after a short pause, a new incarnation opens one.
// All local users are written again under it.
func (s *shard) raiseEpoch() {
	s.mirror.remirrors.Add(1)
	s.superseded = append(s.superseded, s.incarnation.String())
	s.incarnation.epoch++
	s.version, s.versionUncertain = 0, false
	s.trustedUntil.Store(0)
	s.lossNoticed.Store(int64(time.Since(s.mirror.started)))
	s.state.Store(int32(leaseLost))
}

// openLease opens the lease of a new incarnation, and marks every local user to be written under it.
func (s *shard) openLease(ctx context.Context) error {
	sent := time.Now()
	answer, err := s.mirror.redis.lease(ctx, s.index, s.incarnation, "", s.mirror.redis.Lease, nil)
	if errors.Is(err, lua.ErrStaleLease) {
		s.incarnation.epoch++ // an earlier attempt got through after all, and wrote nothing under the lease
		return err
	}
	if err != nil {
		return err
	}
	s.trust(sent)
	s.learn(answer)
	if s.lease() == leaseLost {
		s.state.Store(int32(leaseRefilling))
	} else {
		s.state.Store(int32(leaseHeld))
	}
	current := s.incarnation.String()
	s.current.Store(&current)
	s.markAllDirty()
	return nil
}

// confirmVersion finds out whether the last write got through. If it is only late, it can't take effect after
// the next one: Redis has another version then.
func (s *shard) confirmVersion(ctx context.Context) error {
	version, err := s.mirror.redis.version(ctx, s.index, s.incarnation)
	if err != nil {
		return err
	}
	if version != s.version && version != s.version+1 {
		return lua.ErrStaleLease
	}
	s.version, s.versionUncertain = version, false
	return nil
}

// renew renews the lease and fences superseded incarnations. If it is this incarnation's turn to sweep, it
// does.
func (s *shard) renew(ctx context.Context) error {
	sent, redis := time.Now(), s.mirror.redis
	version := strconv.FormatInt(s.version, 10)
	answer, err := redis.lease(ctx, s.index, s.incarnation, version, redis.Lease, s.superseded)
	if err != nil {
		return err
	}
	s.trust(sent)
	s.learn(answer)
	s.heartbeats.Add(1)
	s.superseded = nil
	s.state.Store(int32(leaseHeld))
	s.sweeper.Store(answer.leases.sweeper(answer.now, redis.Grace) == s.incarnation.String())
	if s.sweeper.Load() && answer.leases.anyDead(answer.now, redis.Grace) {
		s.sweeps.Go(func() { s.sweep(ctx) })
	}
	if s.index > 0 {
		return nil
	}
	shards, err := s.mirror.announce(ctx)
	if errors.Is(err, lua.ErrOtherShards) { // which says nothing of the lease
		return fmt.Errorf("presence: the others use %d shards now, and this instance %d: "+
			"they do not find its users; all must use the same number", shards, len(s.mirror.shards))
	}
	return err
}

// learn keeps what the answer of lease.lua says of Redis and of the other instances.
func (s *shard) learn(answer leaseAnswer) {
	if full := answer.full; s.full.Swap(full) != full {
		s.mirror.log.Warn("redis is full, or no longer", "shard", s.index, "full", full)
	}
	if s.index == 0 {
		s.mirror.live.Store(int64(answer.leases.instancesWithLiveLease(answer.now)))
	}
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
			s.mirror.log.Warn("sweep", "shard", s.index, "error", err) // whoever sweeps next begins again
			return
		}
		step, total = next, total+dropped
	}
	if total > 0 {
		s.mirror.log.Info("swept", "shard", s.index, "users", total)
	}
}

// leave writes what is still dirty and ends the lease. If that fails, the lease expires by itself: a graceful
// stop is a polite crash.
func (s *shard) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := s.flushAndEndLease(ctx); err != nil {
		s.mirror.log.Warn("leaving without ending the lease", "shard", s.index, "error", err)
	}
}

func (s *shard) flushAndEndLease(ctx context.Context) error {
	if err := s.step(ctx, false); err != nil {
		return err
	}
	var notAnnounced error
	if s.index == 0 {
		_, notAnnounced = s.mirror.announce(ctx) // that no socket is left; the lease ends in any case
	}
	version := strconv.FormatInt(s.version, 10)
	_, err := s.mirror.redis.lease(ctx, s.index, s.incarnation, version, 0, nil)
	return errors.Join(err, notAnnounced)
}
