package presence

import (
	"strings"
	"time"
)

// State is what a user is, as far as Redis tells.
type State int

// The numbers are those of entry.lua.
const (
	Offline      State = 0
	Reconnecting State = 1 // the last socket dropped, or its instance died, and the grace has not run out
	Online       State = 2 // an owner with a live lease has a socket
	Unknown      State = 3 // Redis can't be asked, or has just lost its data
)

func (s State) String() string {
	return [...]string{"offline", "reconnecting", "online", "unknown"}[s]
}

// MarshalText makes a State its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// entry is what Redis holds of one user.
type entry struct {
	since  int64 // ms
	owners []owner
}

// owner is an incarnation that has sockets of a user.
type owner struct {
	incarnation string
	sockets     int // 0: the last one dropped, and the user is in the grace there
}

// parseEntry reads "since incarnation:n incarnation:n". It returns false if the text does not begin like an
// entry. Words that are not owners are ignored. entry.lua reads the same.
func parseEntry(text string) (e entry, ok bool) {
	since, owners, _ := strings.Cut(text, " ")
	if e.since, ok = number(since); !ok || len(since) == len(text) {
		return entry{}, false
	}
	for word := range strings.SplitSeq(owners, " ") {
		incarnation, rest, _ := strings.Cut(word, ":")
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		if sockets, ok := number(digits); ok && incarnation != "" {
			e.owners = append(e.owners, owner{incarnation, int(sockets)})
		}
	}
	return e, true
}

// user says what an entry means at a moment of Redis' clock (ms).
func (e entry) user(name string, leases storedLeases, now int64, grace time.Duration) User {
	u := User{Name: name, State: Offline, Instances: []string{}}
	for _, o := range e.owners {
		status := leases.status(o.incarnation, now, grace)
		switch {
		case status == live && o.sockets > 0:
			u.State = Online
			u.Sockets += o.sockets
			u.Instances = append(u.Instances, instanceOf(o.incarnation))
		case status != dead && u.State == Offline:
			u.State = Reconnecting
		}
		if lease, ok := leases[o.incarnation]; ok && o.sockets > 0 && status != live {
			u.LastSeen = max(u.LastSeen, Moment(lease.deadline)) // it was believed until then
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

// Moment is a time in ms since 1970, by Redis' clock.
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
