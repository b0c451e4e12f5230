package presence

import "time"

// What Redis is told is decided here, by functions that know neither Redis nor a clock nor a lock. The loop
// of a shard gives them values and does what they say (flush.go).

// dirtyUser is what is remembered of a user whose count must be written. The count itself is not: it is read
// just before it is written, so that it is as new as it can be.
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
	deferred bool // Redis must not be told yet that the user is gone: decide again at the next renewal
}

// lateGoodbye is how old a goodbye may be to end graces on other instances too. If it could not be written
// for longer than that, the user may since have come to another instance and dropped there. That grace must
// not end, so a late goodbye is written as if the user had dropped here.
const lateGoodbye = backoffMax

// situation is what plan must know besides the user.
type situation struct {
	now          time.Time
	epoch        int  // of the incarnation that writes
	deferOffline bool // see dataLoss.deferOffline
}

// plan decides what Redis must be told of a user who has this count here. at is when the user came or, in a
// grace, when the last socket went. For a user who is gone, dirty remembers it.
func plan(user string, dirty dirtyUser, count Count, at time.Time, in situation) decision {
	goodbye := dirty.leftOnPurpose && in.now.Sub(dirty.changedAt) < lateGoodbye
	switch count.Kind {
	case Gone:
		at = dirty.changedAt
		if at.IsZero() {
			at = in.now
		}
		if goodbye {
			count.Kind = left
		}
	case InGrace:
		// Redis may say offline, for example because this instance hung and its lease expired. Then no grace
		// begins.
		if dirty.mirroredBefore {
			count.Kind = graceIfPresent
		}
		if dirty.mirroredBefore && goodbye {
			count.Kind = leftEarly
		}
	}
	told := change{user, count, at, dirty.mirroredBefore}
	if !in.deferOffline || count.Kind == HasSockets || count.Kind == InGrace {
		return decision{change: told, write: true}
	}
	told.count.Kind = graceIfPresent
	return decision{change: told, write: dirty.deferredEpoch != in.epoch, deferred: true}
}

// dataLoss is what a shard knows of the last time that Redis lost its data.
type dataLoss struct {
	noticed    time.Time     // when; zero: it never did
	refilling  bool          // not all users of this instance are in Redis again
	renewEvery time.Duration // after one renewal of their leases the other instances notice too
	grace      time.Duration
}

// recovering says whether Redis may still lack users of other instances. Until then presence answers are
// stale.
func (l dataLoss) recovering(now time.Time) bool {
	return l.refilling || l.noticedWithin(l.renewEvery+backoffMax, now)
}

// deferOffline says whether Redis must not be told yet that users are gone. Another instance may have the
// same user, and may not have told Redis again: it has the time of a grace for that.
func (l dataLoss) deferOffline(now time.Time) bool {
	return l.recovering(now) || l.noticedWithin(l.grace, now)
}

func (l dataLoss) noticedWithin(d time.Duration, now time.Time) bool {
	return !l.noticed.IsZero() && now.Before(l.noticed.Add(d))
}
