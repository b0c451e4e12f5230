package presence

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Audit says how far Redis differs from one instance's own map. A change that is on its way to Redis is no
// difference.
type Audit struct {
	Instance      string  `json:"instance"`
	Users         int     `json:"users"`         // in the instance's own map
	Entries       int     `json:"entries"`       // in Redis that name this instance
	Missing       int     `json:"missing"`       // users in the map whom Redis has not, or with another count
	Ghosts        int     `json:"ghosts"`        // users in Redis who are not in the map
	OldestSeconds float64 `json:"oldestSeconds"` // since the oldest difference was found; 0: none
}

// difference is a user about whom Redis and the map disagree.
type difference struct {
	user  string
	ghost bool // Redis has the user here, and the map does not
	seen  time.Time
}

// auditBatch is how many users or entries one call of an audit looks at.
const auditBatch = 500

// Audit compares this instance's own map with what Redis says of it, and writes again whatever differs.
func (m *Mirror) Audit(ctx context.Context) (Audit, error) {
	return m.audit(ctx, func(context.Context) error { return ctx.Err() })
}

// Audits returns how many differences all audits have found since the start, and the age of the oldest of
// those that the last audit found.
func (m *Mirror) Audits() (differences int64, oldest time.Duration) {
	return m.found.Load(), time.Duration(m.oldest.Load())
}

// auditLoop audits again and again, with one call in the time between two renewals of a lease, so that it
// costs the same however many users there are. After each audit this instance sweeps the shards whose sweeper
// it is: that finds incarnations whose lease was lost with their instance, which nobody else notices.
func (m *Mirror) auditLoop(ctx context.Context) {
	pace := func(ctx context.Context) error {
		select {
		case <-time.After(m.redis.RenewEvery()):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for pace(ctx) == nil {
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
			m.log.Error("the audit found differences and mends them",
				"missing", found.Missing, "ghosts", found.Ghosts, "oldest_seconds", found.OldestSeconds)
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

// audit looks at all shards. It calls pace before each call to Redis.
func (m *Mirror) audit(ctx context.Context, pace func(context.Context) error) (Audit, error) {
	result := Audit{Instance: m.instance}
	var differences []difference
	for _, s := range m.shards {
		users := m.sockets.appendUsers(nil, s.index)
		result.Users += len(users)
		candidates, entries, err := s.candidates(ctx, users, pace)
		if err != nil {
			return result, err
		}
		result.Entries += entries
		confirmed, err := s.confirm(ctx, candidates)
		for _, d := range confirmed {
			if d.ghost {
				result.Ghosts++
			} else {
				result.Missing++
			}
		}
		if err != nil {
			return result, err
		}
		differences = append(differences, confirmed...)
	}
	oldest := m.remember(differences)
	result.OldestSeconds = oldest.Seconds()
	m.oldest.Store(int64(oldest))
	m.found.Add(int64(len(differences)))
	return result, nil
}

// remember keeps the differences for the next audit, and returns the age of the oldest.
func (m *Mirror) remember(differences []difference) (oldest time.Duration) {
	m.auditing.Lock()
	defer m.auditing.Unlock()
	firstSeen := map[string]time.Time{}
	for _, d := range differences {
		firstSeen[d.user] = d.seen
		if earlier, known := m.differences[d.user]; known {
			firstSeen[d.user] = earlier
		}
		oldest = max(oldest, time.Since(firstSeen[d.user]))
	}
	m.differences = firstSeen
	return oldest
}

// candidates returns the users about whom Redis and the map seem to disagree, and how many entries name this
// instance. It compares each of the users with Redis, then each entry that names this instance with the map.
func (s *shard) candidates(
	ctx context.Context, users []string, pace func(context.Context) error,
) (candidates []string, entries int, err error) {
	for some := range slices.Chunk(users, auditBatch) {
		if err := pace(ctx); err != nil {
			return nil, 0, err
		}
		different, err := s.differences(ctx, some)
		if err != nil {
			return nil, 0, err
		}
		candidates = append(candidates, different...)
	}
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		if err := pace(ctx); err != nil {
			return nil, 0, err
		}
		owned, next, err := s.mirror.redis.usersOwnedBy(ctx, s.index, s.mirror.instance, cursor)
		if err != nil {
			return nil, 0, err
		}
		for _, user := range owned {
			if s.mirror.sockets.Count(user).Kind == Gone {
				candidates = append(candidates, user)
			}
		}
		entries, cursor = entries+len(owned), next
	}
	return candidates, entries, nil
}

// confirm waits until everything that is on its way to Redis has arrived, compares the candidates again, and
// marks those that still differ, so that they are written again.
func (s *shard) confirm(ctx context.Context, candidates []string) (confirmed []difference, err error) {
	if len(candidates) == 0 {
		return nil, nil
	}
	flushed, cancel := context.WithTimeout(ctx, s.mirror.redis.Timeout)
	defer cancel()
	if !s.writes.waitFlushed(flushed, s.writes.lastSeq()) {
		return nil, fmt.Errorf("presence: audit of shard %d: the mirror is behind", s.index)
	}
	// Two audits at the same time would both count a difference that one of them mends.
	s.mirror.auditing.Lock()
	defer s.mirror.auditing.Unlock()
	for some := range slices.Chunk(candidates, auditBatch) {
		more, err := s.confirmSome(ctx, some)
		if err != nil {
			return confirmed, err
		}
		confirmed = append(confirmed, more...)
	}
	return confirmed, nil
}

func (s *shard) confirmSome(ctx context.Context, candidates []string) (confirmed []difference, err error) {
	before := map[string]Count{} // of the users about whom nothing is on its way to Redis
	for _, user := range candidates {
		if !s.writes.awaitsWrite(user) {
			before[user] = s.mirror.sockets.Count(user)
		}
	}
	different, err := s.differences(ctx, candidates)
	if err != nil {
		return nil, err
	}
	for _, user := range different {
		count, known := before[user]
		if !known || s.writes.awaitsWrite(user) || s.mirror.sockets.Count(user) != count {
			continue // it has changed meanwhile
		}
		ghost := count.Kind == Gone
		confirmed = append(confirmed, difference{user, ghost, time.Now()})
		s.writes.mark(user, dirtyUser{mirroredBefore: !ghost})
	}
	return confirmed, nil
}

// differences returns those of some users about whom Redis does not say what the map says. Redis must say it
// under the current incarnation.
func (s *shard) differences(ctx context.Context, users []string) (different []string, err error) {
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
		own := strings.Join(ownersOf(entries[i], s.mirror.instance), " ")
		graceEnded := own == "" && count.Kind == InGrace // the user has left another instance on purpose
		if own != want && !graceEnded {
			different = append(different, user)
		}
	}
	return different, nil
}

// ownersOf returns the owners in an entry that are of one instance: a.1:2 in "7 a.1:2 b.1:1".
func ownersOf(entry, instance string) (owners []string) {
	for _, word := range strings.Fields(entry) {
		if strings.HasPrefix(word, instance+".") {
			owners = append(owners, word)
		}
	}
	return owners
}

// entries reads the entries of users as they are; empty: none.
func (r Redis) entries(ctx context.Context, shard int, users []string) ([]string, error) {
	reply := r.do(ctx, shard, r.Client.B().Hmget().Key(r.Keys.Owners(shard)).Field(users...).Build())
	entries := reply.texts()
	return entries, reply.err
}

// usersOwnedBy takes one step through the owners, and returns the users whose entries name an instance.
func (r Redis) usersOwnedBy(
	ctx context.Context, shard int, instance string, cursor uint64,
) (users []string, next uint64, err error) {
	hscan := r.Client.B().Hscan().Key(r.Keys.Owners(shard)).Cursor(cursor).Count(auditBatch).Build()
	reply := r.do(ctx, shard, hscan)
	step := reply.step()
	for pairs := step.Elements; len(pairs) >= 2; pairs = pairs[2:] { // user, entry, …
		if len(ownersOf(pairs[1], instance)) > 0 {
			users = append(users, pairs[0])
		}
	}
	return users, step.Cursor, reply.err
}
