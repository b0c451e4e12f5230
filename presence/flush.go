package presence

import (
	"context"
	"time"
)

// flush tells Redis of the users that are dirty now. Users who become dirty meanwhile wait for the next
// flush. Under load one call therefore serves many users, and without load nobody waits.
func (s *shard) flush(ctx context.Context) error {
	inFlight, seq := s.writes.take()
	defer s.writes.clearInFlight()
	in := situation{epoch: s.incarnation.epoch, deferOffline: s.loss().deferOffline(time.Now())}
	batch := make([]change, 0, min(len(inFlight), mirrorBatch))
	for user, dirty := range inFlight {
		count, at := s.mirror.sockets.count(user)
		in.now = time.Now()
		decided := plan(user, dirty, count, at, in)
		if decided.deferred {
			dirty.deferredEpoch = in.epoch
			s.writes.deferUser(user, dirty)
		}
		if !decided.write {
			s.writes.acknowledge(user)
			continue
		}
		batch = append(batch, decided.change)
		if len(batch) == mirrorBatch {
			if err := s.write(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := s.write(ctx, batch); err != nil {
		return err
	}
	s.writes.setFlushedTo(seq)
	return nil
}

// write tells Redis of some users in flight. If it fails, all who are still in flight become dirty again.
func (s *shard) write(ctx context.Context, batch []change) error {
	if len(batch) == 0 {
		return nil
	}
	sent := time.Now()
	if err := s.mirror.redis.mirror(ctx, s.index, s.incarnation, s.version, batch); err != nil {
		s.versionUncertain = true
		s.writes.requeue()
		return err
	}
	s.trust(sent)
	s.version++
	for _, c := range batch {
		s.writes.acknowledge(c.user)
	}
	return nil
}
