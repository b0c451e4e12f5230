package presence

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Audit is how far Redis differs from one instance's own map. Differences that are only on their way to Redis do not count.
type Audit struct {
	Instance      string  `json:"instance"`
	Users         int     `json:"users"`         // of the instance's own map
	Entries       int     `json:"entries"`       // of Redis that name this instance
	Missing       int     `json:"missing"`       // users of the map whom Redis does not show there, or with another count
	Ghosts        int     `json:"ghosts"`        // users whom Redis shows there, and the map does not
	OldestSeconds float64 `json:"oldestSeconds"` // since the oldest of these was first seen; 0: there is none
}

// auditBatch is how many users or entries one call of an audit looks at.
const auditBatch = 500

// Audit compares this instance's own map with what Redis says of it, and writes again whatever differs.
func (m *Mirror) Audit(ctx context.Context) (Audit, error) {
	return m.audit(ctx, func(context.Context) error { return ctx.Err() })
}

// Audits is what the audits that run by themselves have found: differences since the start, and the age of the oldest now known.
func (m *Mirror) Audits() (differences int64, oldest time.Duration) {
	return m.found.Load(), time.Duration(m.oldest.Load())
}

// patrol audits for ever, one call for each renewal of a lease, so that it costs the same however many users there are. After each
// audit whoever must sweep does so: that is how tokens are found that lost their lease with their instance, and which nobody claims.
func (m *Mirror) patrol(ctx context.Context) {
	pace := func(ctx context.Context) error {
		select {
		case <-time.After(m.redis.RenewEvery()):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for ctx.Err() == nil {
		if err := pace(ctx); err != nil {
			return
		}
		found, err := m.audit(ctx, pace)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.log.Warn("audit", "error", err)
		default:
			m.sweepOwn(ctx)
		}
		if found.Missing+found.Ghosts > 0 {
			m.log.Error("the audit found differences and mends them", "missing", found.Missing, "ghosts", found.Ghosts, "oldest_seconds", found.OldestSeconds)
		}
	}
}

func (m *Mirror) sweepOwn(ctx context.Context) {
	for _, s := range m.shards {
		if s.sweeper.Load() {
			s.sweep(ctx)
		}
	}
}

// audit looks at all shards; pace is called before each call to Redis.
func (m *Mirror) audit(ctx context.Context, pace func(context.Context) error) (Audit, error) {
	result := Audit{Instance: m.instance}
	differing := map[string]time.Time{} // user → when the difference was first seen
	for _, s := range m.shards {
		users := m.sockets.appendUsers(nil, s.index)
		result.Users += len(users)
		suspects, entries, err := s.suspects(ctx, users, pace)
		if err != nil {
			return result, err
		}
		result.Entries += entries
		if err := s.convict(ctx, suspects, &result, differing); err != nil {
			return result, err
		}
	}
	oldest := time.Duration(0)
	for _, since := range differing {
		oldest = max(oldest, time.Since(since))
	}
	m.auditing.Lock()
	m.differing = differing
	m.auditing.Unlock()
	result.OldestSeconds = oldest.Seconds()
	m.oldest.Store(int64(oldest))
	m.found.Add(int64(result.Missing + result.Ghosts))
	return result, nil
}

// suspects are users of whom Redis and the map seem to differ.
func (s *shard) suspects(ctx context.Context, users []string, pace func(context.Context) error) (suspects []string, entries int, err error) {
	for len(users) > 0 {
		if err := pace(ctx); err != nil {
			return nil, 0, err
		}
		some := users[:min(len(users), auditBatch)]
		users = users[len(some):]
		differ, err := s.differing(ctx, some)
		if err != nil {
			return nil, 0, err
		}
		suspects = append(suspects, differ...)
	}
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		if err := pace(ctx); err != nil {
			return nil, 0, err
		}
		var names []string
		if names, cursor, err = s.mirror.redis.claimed(ctx, s.index, s.mirror.instance, cursor); err != nil {
			return nil, 0, err
		}
		entries += len(names)
		for _, name := range names {
			if s.mirror.sockets.Count(name).Kind == Gone {
				suspects = append(suspects, name)
			}
		}
	}
	return suspects, entries, nil
}

// convict lets what is on its way to Redis arrive, looks at the suspects again, and has those mirrored that still differ.
func (s *shard) convict(ctx context.Context, suspects []string, result *Audit, differing map[string]time.Time) error {
	if len(suspects) == 0 {
		return nil
	}
	flushed, cancel := context.WithTimeout(ctx, s.mirror.redis.Timeout)
	defer cancel()
	if !s.writes.waitFlushed(flushed, s.writes.lastSeq()) {
		return fmt.Errorf("presence: audit shard %d: the mirror is behind", s.index)
	}
	s.mirror.auditing.Lock() // for two that do this at once would both count what one mends
	defer s.mirror.auditing.Unlock()
	for first := 0; first < len(suspects); first += auditBatch {
		some := suspects[first:min(first+auditBatch, len(suspects))]
		before := map[string]Count{} // counts of whom nothing is on its way
		for _, user := range some {
			if !s.writes.awaitsWrite(user) {
				before[user] = s.mirror.sockets.Count(user)
			}
		}
		differ, err := s.differing(ctx, some)
		if err != nil {
			return err
		}
		for _, user := range differ {
			count, still := before[user]
			if !still || s.writes.awaitsWrite(user) || s.mirror.sockets.Count(user) != count {
				continue // it has changed meanwhile
			}
			if count.Kind == Gone {
				result.Ghosts++
			} else {
				result.Missing++
			}
			differing[user] = time.Now()
			if since, known := s.mirror.differing[user]; known {
				differing[user] = since
			}
			s.writes.mark(user, dirtyUser{mirroredBefore: count.Kind != Gone})
		}
	}
	return nil
}

// differing are those of some users of whom Redis does not say what the map says, under the token that holds now.
func (s *shard) differing(ctx context.Context, users []string) (differ []string, err error) {
	entries, err := s.mirror.redis.entries(ctx, s.index, users)
	if err != nil {
		return nil, err
	}
	incarnation := s.currentIncarnation()
	for i, user := range users {
		want, count := "", s.mirror.sockets.Count(user)
		if count.Kind != Gone {
			want = incarnation + ":" + strconv.Itoa(count.Sockets)
		}
		own := strings.Join(claimsOf(entries[i], s.mirror.instance), " ")
		ended := own == "" && count.Kind == InGrace // the grace, for the user has left elsewhere on purpose
		if own != want && !ended {
			differ = append(differ, user)
		}
	}
	return differ, nil
}

// claimsOf are the token:n of one instance in an entry.
func claimsOf(entry, instance string) (claims []string) {
	for _, word := range strings.Fields(entry) {
		if strings.HasPrefix(word, instance+".") {
			claims = append(claims, word)
		}
	}
	return claims
}

// entries reads the entries of users as they are; empty: none.
func (r Redis) entries(ctx context.Context, shard int, users []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	messages, err := r.Client.Do(ctx, r.Client.B().Hmget().Key(r.Keys.Owners(shard)).Field(users...).Build()).ToArray()
	if err != nil {
		return nil, fmt.Errorf("presence: audit shard %d: %w", shard, err)
	}
	entries := make([]string, len(messages))
	for i, message := range messages {
		if !message.IsNil() {
			if entries[i], err = message.ToString(); err != nil {
				return nil, fmt.Errorf("presence: audit shard %d: %w", shard, err)
			}
		}
	}
	return entries, nil
}

// claimed takes one step through the owners and returns the users whom one instance claims.
func (r Redis) claimed(ctx context.Context, shard int, instance string, cursor uint64) (users []string, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	var step rueidis.ScanEntry
	step, err = r.Client.Do(ctx, r.Client.B().Hscan().Key(r.Keys.Owners(shard)).Cursor(cursor).Count(auditBatch).Build()).AsScanEntry()
	if err != nil {
		return nil, 0, fmt.Errorf("presence: audit shard %d: %w", shard, err)
	}
	for i := 0; i+1 < len(step.Elements); i += 2 {
		if len(claimsOf(step.Elements[i+1], instance)) > 0 {
			users = append(users, step.Elements[i])
		}
	}
	return users, step.Cursor, nil
}
