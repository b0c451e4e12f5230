package presence

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leaseStatus says how far the incarnation that holds a lease is believed. The numbers are those of
// leases.lua.
type leaseStatus int

const (
	dead    leaseStatus = iota // never again; what it wrote is swept
	expired                    // not now, but it may renew, and its users are reconnecting
	live                       // its users are online
)

// storedLease is the right of an incarnation to be believed until a deadline of Redis' clock.
type storedLease struct {
	deadline      int64 // ms
	extendedUntil int64 // ms; dead from then on, since nobody could renew at the deadline. 0: not extended
	fenced        bool  // dead whatever the deadline is, and can never be renewed

	version int64 // writes of mirror.lua under it
}

// status is the status of a lease at a moment of Redis' clock (ms). lease_status in leases.lua decides alike.
func (l storedLease) status(now int64, grace time.Duration) leaseStatus {
	end := l.extendedUntil
	if end == 0 {
		end = l.deadline + grace.Milliseconds()
	}
	switch {
	case l.fenced:
		return dead
	case now < l.deadline:
		return live
	case now < end:
		return expired
	default:
		return dead
	}
}

// storedLeases are all leases of one shard, by incarnation.
type storedLeases map[string]storedLease

// parseLeases reads incarnation, lease, incarnation, lease, … as HGETALL answers. A lease that is not
// readable is left out and counted: its incarnation is treated like one that has lost its lease.
func parseLeases(flat []string) (leases storedLeases, unreadable int) {
	leases = make(storedLeases, len(flat)/2)
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
func parseLease(text string) (lease storedLease, ok bool) {
	words := strings.Split(text, " ")
	if len(words) < 2 || len(words) > 3 {
		return storedLease{}, false
	}
	var okDeadline, okVersion bool
	lease.deadline, okDeadline = number(words[0])
	lease.version, okVersion = number(words[1])
	ok = okDeadline && okVersion
	switch {
	case len(words) == 2:
	case words[2] == "dead":
		lease.fenced = true
	default:
		var okUntil bool
		lease.extendedUntil, okUntil = number(words[2])
		ok = ok && okUntil
	}
	return lease, ok
}

// number reads digits, and nothing else.
func number(text string) (n int64, ok bool) {
	unsigned, err := strconv.ParseUint(text, 10, 63)
	return int64(unsigned), err == nil
}

// status is the status of an incarnation's lease. Without one it is expired: its lease was lost, and its
// instance is about to come back under a new epoch.
func (l storedLeases) status(incarnation string, now int64, grace time.Duration) leaseStatus {
	lease, ok := l[incarnation]
	if !ok {
		return expired
	}
	return lease.status(now, grace)
}

// sweeper is the incarnation that must sweep: the first live one in sorted order; empty if there is none. All
// instances see the same leases, so they agree without a lock. If they disagree for a moment, two sweeps at
// the same time do no harm.
func (l storedLeases) sweeper(now int64, grace time.Duration) string {
	for _, incarnation := range slices.Sorted(maps.Keys(l)) {
		if l[incarnation].status(now, grace) == live {
			return incarnation
		}
	}
	return ""
}

// anyDead says whether there is something to sweep.
func (l storedLeases) anyDead(now int64, grace time.Duration) bool {
	for _, lease := range l {
		if lease.status(now, grace) == dead {
			return true
		}
	}
	return false
}

// instancesWithLiveLease counts instances, which may have a live lease under more than one epoch.
func (l storedLeases) instancesWithLiveLease(now int64) int {
	instances := map[string]struct{}{}
	for incarnation, lease := range l {
		if lease.status(now, 0) == live {
			instances[instanceOf(incarnation)] = struct{}{}
		}
	}
	return len(instances)
}

// incarnation is the name under which an instance writes in one shard: 7f3a9c1e.3 is the instance 7f3a9c1e in
// its third epoch. The instance goes on to the next epoch when what Redis holds under its name can't be
// trusted any more.
type incarnation struct {
	instance string
	epoch    int
}

func (i incarnation) String() string { return fmt.Sprintf("%s.%d", i.instance, i.epoch) }

// instanceOf is the instance of an incarnation: 7f3a9c1e of 7f3a9c1e.3.
func instanceOf(incarnation string) string {
	instance, _, _ := strings.Cut(incarnation, ".")
	return instance
}
