package presence

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is what a user is, as far as Redis tells.
type State int

// The numbers are those of entry.lua.
const (
	Offline      State = 0
	Reconnecting State = 1 // the last socket dropped, or its instance died, and the grace has not run out
	Online       State = 2 // a live owner holds a socket
	Unknown      State = 3 // Redis can't be asked
)

func (s State) String() string {
	return [...]string{"offline", "reconnecting", "online", "unknown"}[s]
}

// MarshalText makes a State its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LeaseStatus is how far a token is believed.
type LeaseStatus int

const (
	Dead    LeaseStatus = iota // never again
	Expired                    // not now, but its users may be back within the grace
	Live
)

// Lease is a token's right to be believed until a deadline of Redis' clock.
type Lease struct {
	Deadline      int64 // ms
	ExtendedUntil int64 // ms; if not 0, dead only from then on: nobody could renew when the deadline passed
	Fenced        bool  // can't be renewed, whatever its deadline

	version int64 // mirror writes under it
}

// Status of a token with this lease, at a moment of Redis' clock (ms). lease_status in leases.lua decides alike.
func (l Lease) Status(now int64, grace time.Duration) LeaseStatus {
	end := l.ExtendedUntil
	if end == 0 {
		end = l.Deadline + grace.Milliseconds()
	}
	switch {
	case l.Fenced:
		return Dead
	case now < l.Deadline:
		return Live
	case now < end:
		return Expired
	default:
		return Dead
	}
}

// Leases are all leases of one shard, by token.
type Leases map[string]Lease

// parseLeases reads token, lease, token, lease, … as HGETALL answers. A lease that can't be read is passed
// over, and counted: its token is as one that has lost its lease.
func parseLeases(flat []string) (leases Leases, unreadable int) {
	leases = make(Leases, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		lease, ok := parseLease(flat[i+1])
		if !ok {
			unreadable++
			continue
		}
		leases[flat[i]] = lease
	}
	return leases, unreadable
}

// parseLease reads "deadline version", with "until" or "dead" behind it. lease_status in leases.lua reads
// the same.
func parseLease(text string) (lease Lease, ok bool) {
	words := strings.Split(text, " ")
	if len(words) < 2 || len(words) > 3 {
		return Lease{}, false
	}
	var okDeadline, okVersion bool
	lease.Deadline, okDeadline = number(words[0])
	lease.version, okVersion = number(words[1])
	ok = okDeadline && okVersion
	switch {
	case len(words) == 2:
	case words[2] == "dead":
		lease.Fenced = true
	default:
		var okUntil bool
		lease.ExtendedUntil, okUntil = number(words[2])
		ok = ok && okUntil
	}
	return lease, ok
}

// number reads digits, and nothing else.
func number(text string) (n int64, ok bool) {
	unsigned, err := strconv.ParseUint(text, 10, 63)
	return int64(unsigned), err == nil
}

// Status of a token. One without a lease lost it and is about to come back under another.
func (l Leases) Status(token string, now int64, grace time.Duration) LeaseStatus {
	lease, ok := l[token]
	if !ok {
		return Expired
	}
	return lease.Status(now, grace)
}

// Sweeper is the token that must sweep: the first live one in sorted order. All instances see the same leases, so they agree without
// a lock; if for a moment they don't, two sweeps do no harm. Empty: there is none.
func (l Leases) Sweeper(now int64, grace time.Duration) string {
	for _, token := range slices.Sorted(maps.Keys(l)) {
		if l[token].Status(now, grace) == Live {
			return token
		}
	}
	return ""
}

// AnyDead says whether there is something to sweep.
func (l Leases) AnyDead(now int64, grace time.Duration) bool {
	for _, lease := range l {
		if lease.Status(now, grace) == Dead {
			return true
		}
	}
	return false
}

// liveInstances is how many instances have a live lease.
func (l Leases) liveInstances(now int64) int {
	live := map[string]struct{}{}
	for token, lease := range l {
		if !lease.Fenced && now < lease.Deadline {
			instance, _, _ := strings.Cut(token, ".")
			live[instance] = struct{}{}
		}
	}
	return len(live)
}

// entry is what Redis holds of one user.
type entry struct {
	since  int64 // ms
	owners []owner
}

// owner is an instance's claim to sockets of a user.
type owner struct {
	token   string
	sockets int // 0 = dropped, and in its grace
}

// parseEntry reads "since token:n token:n"; false: it does not begin like an entry. Words that are no owners
// are passed over. entry.lua reads the same.
func parseEntry(text string) (e entry, ok bool) {
	since, owners, _ := strings.Cut(text, " ")
	if e.since, ok = number(since); !ok || len(since) == len(text) {
		return entry{}, false
	}
	for word := range strings.SplitSeq(owners, " ") {
		token, rest, _ := strings.Cut(word, ":")
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		if sockets, ok := number(digits); ok && token != "" {
			e.owners = append(e.owners, owner{token, int(sockets)})
		}
	}
	return e, true
}

// user says what an entry means at a moment of Redis' clock (ms).
func (e entry) user(name string, leases Leases, now int64, grace time.Duration) User {
	u := User{Name: name, State: Offline, Instances: []string{}}
	for _, o := range e.owners {
		standing := leases.Status(o.token, now, grace)
		switch {
		case standing == Live && o.sockets > 0:
			u.State = Online
			u.Sockets += o.sockets
			instance, _, _ := strings.Cut(o.token, ".")
			u.Instances = append(u.Instances, instance)
		case standing != Dead && u.State == Offline:
			u.State = Reconnecting
		}
		if lease, ok := leases[o.token]; ok && o.sockets > 0 && standing != Live {
			u.LastSeen = max(u.LastSeen, Moment(lease.Deadline)) // it was believed until then
		}
	}
	switch u.State {
	case Online:
		u.Since, u.LastSeen = Moment(e.since), Moment(now)
	case Reconnecting:
		u.Since = Moment(e.since)
	}
	return u
}

// Moment is a time in ms since 1970, as Redis' clock tells it.
type Moment int64

// Never is no moment: null in JSON.
const Never Moment = 0

func thisMoment() Moment { return Moment(time.Now().UnixMilli()) }

// MarshalJSON gives RFC 3339, in UTC, with milliseconds.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m == Never {
		return []byte("null"), nil
	}
	return time.UnixMilli(int64(m)).UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z07:00"`), nil
}
