package presence

import "time"

// What to write is decided here, by functions of values alone: they know neither Redis nor a clock nor locks.
// The loop of a shard (see loop.go) gives them the values and does what they say.

// dirtyUser is what is remembered of a user whose count must be written. The count itself is read only when
// it is: what is written is then as new as it can be.
type dirtyUser struct {
	changedAt      time.Time // when the count last changed; zero: it did not, but Redis may have it wrong
	leftOnPurpose  bool      // the last socket was closed on purpose
	mirroredBefore bool      // Redis was told of this user before: if it has no entry, it lost the entry
	deferredEpoch  int       // in which Redis was told only that the user is in a grace; 0: none
}

// mergeDirty combines what was remembered of a user with what is marked now. A change replaces an older one.
// A mark without a change never does: a goodbye that is still to be written stays one. It only makes sure
// that Redis is told once more.
func mergeDirty(older, newer dirtyUser) dirtyUser {
	if newer.changedAt.IsZero() {
		older.deferredEpoch = 0
		return older
	}
	newer.mirroredBefore = older.mirroredBefore
	return newer
}

// change is what Redis must be told of a user.
type change struct {
	user           string
	count          Count
	at             time.Time // with sockets, when the user came; else when the last socket went
	mirroredBefore bool      // Redis was told of this user before: if it has no entry, it lost the entry
}

// decision is what to do with one dirty user.
type decision struct {
	change
	write    bool // false: Redis has been told already
	deferred bool // more than that must not be told yet: decide again when the lease is renewed
}

// lateGoodbye is the age at which a goodbye that could not be written is only the end of a grace. Since then
// the user may have come to another instance and dropped there: that grace must not end.
const lateGoodbye = backoffMax

// plan decides what Redis must be told of a user. The user has this count here, since at. deferOffline: Redis
// has lost its data lately, so other instances may have this user too, and may not have told it again. epoch
// is the one in which is written.
func plan(
	user string, d dirtyUser, count Count, at time.Time, deferOffline bool, epoch int, now time.Time,
) decision {
	goodbye := d.leftOnPurpose && now.Sub(d.changedAt) < lateGoodbye
	switch count.Kind {
	case Gone:
		at = d.changedAt
		if at.IsZero() {
			at = now
		}
		if goodbye {
			count.Kind = left
		}
	case InGrace:
		// Redis may say offline, for example because this instance hung and its lease expired: then no grace
		// begins.
		if d.mirroredBefore {
			count.Kind = graceIfPresent
		}
		if d.mirroredBefore && goodbye {
			count.Kind = leftEarly
		}
	}
	told := change{user, count, at, d.mirroredBefore}
	if !deferOffline || count.Kind == HasSockets || count.Kind == InGrace {
		return decision{change: told, write: true}
	}
	told.count.Kind = graceIfPresent
	return decision{change: told, write: d.deferredEpoch != epoch, deferred: true}
}

// dataLoss is what a shard knows of the last time that Redis lost its data.
type dataLoss struct {
	noticed    time.Time     // when; zero: it never did
	refilling  bool          // not all users of this instance are in Redis again
	renewEvery time.Duration // after one renewal of their leases the other instances notice too
	grace      time.Duration
}

// recovering says whether what Redis says of users of other instances may still be incomplete: presence
// answers are then stale.
func (l dataLoss) recovering(now time.Time) bool {
	return l.refilling || l.noticedWithin(l.renewEvery+backoffMax, now)
}

// deferOffline says whether Redis must not be told yet that users are gone: another instance may have the
// same user, and may not have told Redis again. It has the time of a grace for that.
func (l dataLoss) deferOffline(now time.Time) bool {
	return l.recovering(now) || l.noticedWithin(l.grace, now)
}

func (l dataLoss) noticedWithin(d time.Duration, now time.Time) bool {
	return !l.noticed.IsZero() && now.Before(l.noticed.Add(d))
}
