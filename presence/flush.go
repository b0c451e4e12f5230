package presence

import (
	"context"
	"time"
)

// flush writes the users that are dirty now. What becomes dirty meanwhile waits for the next flush.
func (s *shard) flush(ctx context.Context) error {
	s.mu.Lock()
	if len(s.dirty) > 0 { // an empty one stays theirs who mark
		s.flying, s.dirty = s.dirty, map[string]mark{}
	}
	marks := s.marks
	s.mu.Unlock()
	defer s.landed()

	tooSoon := s.tooSoonToGo()
	batch := make([]change, 0, min(len(s.flying), mirrorBatch))
	for user, mark := range s.flying {
		c := mark.change(user, s.mirror.sockets)
		if (c.count.Kind == Gone || c.count.Kind == left) && tooSoon {
			c.count.Kind = graceIfPresent
			told := mark.kept == s.token.Epoch
			s.stay(user, mark)
			if told {
				s.unload(user)
				continue
			}
		}
		batch = append(batch, c)
		if len(batch) == mirrorBatch {
			if err := s.write(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		if err := s.write(ctx, batch); err != nil {
			return err
		}
	}
	s.settle(marks)
	return nil
}

// stay has a user looked at again when the lease is renewed.
func (s *shard) stay(user string, m mark) {
	m.kept = s.token.Epoch
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staying[user] = m
}

// takeStaying makes those who stay dirty again.
func (s *shard) takeStaying() {
	s.mu.Lock()
	staying := s.staying
	s.staying = map[string]mark{}
	s.mu.Unlock()
	s.putBack(staying)
}

// change is what is so now of a marked user.
func (m mark) change(user string, sockets *Sockets) change {
	count, at := sockets.count(user)
	switch {
	case count.Kind == Gone && m.left && time.Since(m.at) < backoffMax: // later, others may have begun a grace since
		count.Kind, at = left, m.at
	case count.Kind == Gone && !m.at.IsZero():
		at = m.at
	case count.Kind == Gone:
		at = time.Now()
	case count.Kind == InGrace && m.known && m.left && time.Since(m.at) < backoffMax:
		count.Kind = leftEarly
	case count.Kind == InGrace && m.known:
		count.Kind = graceIfPresent // where the user was offline before, as for an instance that hung, a grace does not begin
	}
	return change{user, count, at, m.known}
}

// write writes one batch of those who are flying. On an error all of them who are not written yet go back.
func (s *shard) write(ctx context.Context, batch []change) error {
	started := time.Now()
	err := s.mirror.redis.mirror(ctx, s.index, s.token, s.version, batch)
	if err != nil {
		s.unsettled = true
		s.putBack(s.flying)
		return err
	}
	s.believe(started)
	s.version++
	for _, c := range batch {
		s.unload(c.user)
	}
	return nil
}

// unload takes a user off those who are being written.
func (s *shard) unload(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flying, user)
}

// landed says that nobody is being written any more.
func (s *shard) landed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying = nil
}

// putBack makes users dirty again.
func (s *shard) putBack(taken map[string]mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for user, older := range taken {
		newer, marked := s.dirty[user]
		if newer.at.IsZero() { // nothing has changed since
			newer = older
			if marked {
				newer.kept = 0 // but somebody saw that Redis was not told, or has it wrong
			}
		}
		newer.known = older.known
		s.dirty[user] = newer
	}
}
