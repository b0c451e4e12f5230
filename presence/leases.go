package presence

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LeaseStatus says how far the incarnation that holds a lease is believed. The numbers are those of
// leases.lua.
type LeaseStatus int

const (
	Dead    LeaseStatus = iota // never again; what it wrote is swept
	Expired                    // not now, but it may renew, and its users are reconnecting
	Live                       // its users are online
)

// Lease is the right of an incarnation to be believed until a deadline of Redis' clock.
type Lease struct {
	Deadline      int64 // ms
	ExtendedUntil int64 // ms; dead from then on, since nobody could renew at the deadline. 0: not extended
	Fenced        bool  // dead whatever the deadline is, and can never be renewed

	version int64 // writes of mirror.lua under it
}

// Status is the status of a lease at a moment of Redis' clock (ms). lease_status in leases.lua decides alike.
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

// Leases are all leases of one shard, by incarnation.
type Leases map[string]Lease

// parseLeases reads incarnation, lease, incarnation, lease, … as HGETALL answers. A lease that is not
// readable is left out and counted: its incarnation is treated like one that has lost its lease.
func parseLeases(flat []string) (leases Leases, unreadable int) {
	leases = make(Leases, len(flat)/2)
	for ; len(flat) >= 2; flat = flat[2:] {
		lease, ok := parseLease(flat[1])
		if !ok {
			unreadable++
			continue
		}
		leases[flat[0]] = lease
	}
	return leases, unreadable
}

// parseLease reads "deadline version", which "until" or "dead" may follow. lease_status in leases.lua reads
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

// Status is the status of an incarnation's lease. Without one it is expired: its lease was lost, and its
// instance is about to come back under a new epoch.
func (l Leases) Status(incarnation string, now int64, grace time.Duration) LeaseStatus {
	lease, ok := l[incarnation]
	if !ok {
		return Expired
	}
	return lease.Status(now, grace)
}

// Sweeper is the incarnation that must sweep: the first live one in sorted order; empty if there is none. All
// instances see the same leases, so they agree without a lock. If they disagree for a moment, two sweeps at
// the same time do no harm.
func (l Leases) Sweeper(now int64, grace time.Duration) string {
	for _, incarnation := range slices.Sorted(maps.Keys(l)) {
		if l[incarnation].Status(now, grace) == Live {
			return incarnation
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

// instancesWithLiveLease counts instances, which may have a live lease under more than one epoch.
func (l Leases) instancesWithLiveLease(now int64) int {
	instances := map[string]struct{}{}
	for incarnation, lease := range l {
		if lease.Status(now, 0) == Live {
			instances[instanceOf(incarnation)] = struct{}{}
		}
	}
	return len(instances)
}

// instanceOf is the instance of an incarnation: 7f3a9c1e of 7f3a9c1e.3.
func instanceOf(incarnation string) string {
	instance, _, _ := strings.Cut(incarnation, ".")
	return instance
}
