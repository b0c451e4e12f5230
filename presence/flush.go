package presence

import (
	"context"
	"time"
)

// flush tells Redis of the users that are dirty now. What becomes dirty meanwhile waits for the next flush,
// so that under load one call serves many users, and an idle instance waits for nobody.
func (s *shard) flush(ctx context.Context) error {
	inFlight, seq := s.writes.take()
	defer s.writes.clearInFlight()
	deferOffline := s.loss().deferOffline(time.Now())
	batch := make([]change, 0, min(len(inFlight), mirrorBatch))
	for user, dirty := range inFlight {
		count, at := s.mirror.sockets.count(user)
		decided := plan(user, dirty, count, at, deferOffline, s.incarnation.Epoch, time.Now())
		if decided.deferred {
			dirty.deferredEpoch = s.incarnation.Epoch
			s.writes.deferUser(user, dirty)
		}
		if !decided.write {
			s.writes.acknowledge(user)
			continue
		}
		if batch = append(batch, decided.change); len(batch) < mirrorBatch {
			continue
		}
		if err := s.write(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	if len(batch) > 0 {
		if err := s.write(ctx, batch); err != nil {
			return err
		}
	}
	s.writes.setFlushedTo(seq)
	return nil
}

// write writes some of the users in flight. If it fails, all who are still in flight become dirty again.
func (s *shard) write(ctx context.Context, batch []change) error {
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
