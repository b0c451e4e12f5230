package main

import (
	"slices"
	"time"

	"rollcall/app/redis"
)

// After each fault, verify compares what was seen during the run with what the clients know. What it demands
// is what Rollcall promises under faults. What it excuses is not promised. This page says both.
//
// While a fault runs, three instances get pushes, reads and events of clients without a pause. Clients
// reconnect by themselves, as a close code tells them. Each client notes every frame that it gets and every
// socket that it loses. Two words are used below:
//
//   - A user stayed if one of its clients kept its socket through the whole run, on an instance that was not
//     cut off from Redis (or, for the log of changes, not for as long as a grace).
//   - An instance is cut off while it alone is paused or cannot talk to Redis, and others can. The log and
//     the reads of other instances are then right to call its users reconnecting, and after a grace offline:
//     nobody can tell it from a dead instance.
//
// Sockets. An instance that lives closes no socket, whatever happens to Redis, to its link or to other
// instances. A new socket is welcomed. Each event that a client sends on a socket that stays open is
// answered. This has no excuse. (client.closed and faultRun.finish check it.)
//
// When the fault is over, all of these become true again without help, in any order (faultRun.finish): every
// instance reports exactly the users, sockets and places that the clients know, and does not call that stale;
// a push to everybody reaches every client; no instance's own map differs from Redis. There is no excuse.
//
// Order (verifyOrderLocked). A socket gets the pushes that one instance accepted for its user in the order in
// which they were accepted, and none twice. This holds whatever the sender was told, also for a push that was
// answered with an error and arrives late. There is no excuse.
//
// Pushes (verifyPushesLocked). A push was accepted if its answer is 200, names at least one instance and is
// not partial. Callers rely on two numbers in that answer:
//
//   - sockets.written: the push came to at least so many sockets. There is no excuse.
//   - instances: it came to the user's sockets on so many instances. This is excused in two cases. If Redis
//     itself threw away messages that it had accepted (it was killed, it closed a subscription, or a replica
//     took over), nobody can know. If no instance could reach Redis for a while, an instance that is gone
//     looks alive until its lease expires, and Redis counts it. Who must know asks for wait=written or
//     wait=acked.
//
// Neither is checked for a user who lost a socket without a goaway, or who is on an instance that was cut
// off: such a client cannot know what was on its way. A client that a stopping instance sent on (goaway) must
// still get each accepted push at least once, though perhaps on one instance instead of two.
//
// The log of changes (verifyLogLocked):
//
//   - It has no entry for a user who stayed. Excuse: Redis lost its state, and another client of the user
//     reconnected meanwhile; the user may then be logged as online once more.
//   - A user is logged as offline only with a reason: nobody was connected for a grace, a client left on
//     purpose (code 1000), an instance was cut off for a grace, or Redis lost its state.
//   - Entries alternate, online and offline, and the last one is the truth. Excuse: Redis lost its state, and
//     with it what was logged before.
//
// Since (verifySinceLocked). The time since when a user is online stays as long as the user does. Excuse:
// Redis lost its state; then it is at least as early as the oldest socket that is still open. (Only on a
// Redis with this machine's clock.)
//
// Reads (verifyReadsLocked). No instance that was not cut off reports a user who stayed as offline. Excuse:
// none, but there are three other answers. A read may be marked as stale, and then a user's state may be
// unknown. A user may be reported as reconnecting, since a lease can expire for a moment on a busy machine.
// Both are counted in the report of the run.

// verify checks all of that, except what finish has checked already.
func (run *faultRun) verify() {
	run.cluster.t.Helper()
	p := run.cluster.pool
	cutOff := map[string]time.Duration{} // by instance
	for _, n := range run.cluster.nodes {
		cutOff[n.instance().Instance] = n.cutOffFor()
	}
	changes := run.cluster.newChanges()
	sinces := run.cluster.sinces()
	p.mu.Lock()
	defer p.mu.Unlock()
	run.verifyPushesLocked(cutOff)
	for _, c := range p.clients {
		run.verifyOrderLocked(c)
	}
	for _, u := range p.users {
		run.verifyLogLocked(u, changes[u.name], u.stayedLocked(cutOff, clusterGrace))
		run.verifySinceLocked(u, changes[u.name], sinces[u.name])
	}
	run.verifyReadsLocked(cutOff)
}

// stayedLocked says whether one of the user's clients kept its socket through the run, on an instance that
// was cut off for less than a time.
func (u *user) stayedLocked(cutOff map[string]time.Duration, less time.Duration) bool {
	return slices.ContainsFunc(u.clients, func(c *client) bool {
		return c.breaks == 0 && c.instance != "" && cutOff[c.instance] < less
	})
}

// arrival is where a push arrived, of all clients of its user.
type arrival struct {
	checked   bool // the clients can know: they kept their sockets, or a goaway sent them on
	sentOn    bool // a goaway sent one of them on
	sockets   int
	instances map[string]bool
}

// arrivalLocked looks up where a push to the user arrived.
func (u *user) arrivalLocked(id string, cutOff map[string]time.Duration) arrival {
	a := arrival{checked: true, instances: map[string]bool{}}
	for _, c := range u.clients {
		a.checked = a.checked && c.breaks == c.goaways && cutOff[c.instance] == 0
		a.sentOn = a.sentOn || c.goaways > 0
		if c.frames[id] > 0 {
			a.instances[c.instance] = true
			a.sockets++
		}
	}
	return a
}

// verifyPushesLocked checks that every accepted push arrived at as many sockets and instances as its answer
// says.
func (run *faultRun) verifyPushesLocked(cutOff map[string]time.Duration) {
	t, users, lost := run.cluster.t, map[string]*user{}, 0
	for _, u := range run.cluster.pool.users {
		users[u.name] = u
	}
	for _, push := range run.pushes {
		a := users[push.user].arrivalLocked(push.id, cutOff)
		switch {
		case !a.checked:
		case a.sockets < push.written:
			t.Errorf("%s: a push was written to %d sockets of %s, and %d got it",
				run.name, push.written, push.user, a.sockets)
		case a.sockets == 0, !a.sentOn && len(a.instances) < push.instances:
			lost++
		}
	}
	if lost > 0 && !run.lostMessages && !run.unreachable {
		t.Errorf("%s: %d of %d pushes were accepted, and did not arrive", run.name, lost, len(run.pushes))
	}
	run.cluster.report.count(run.name, "pushes", len(run.pushes))
	run.cluster.report.count(run.name, "lost", lost)
}

// verifyOrderLocked checks that each socket of a client got the pushes of each instance in order, and none
// twice.
func (run *faultRun) verifyOrderLocked(c *client) {
	type source struct {
		from   string
		socket int
	}
	last := map[source]int{}
	for _, push := range c.order {
		from := source{push.From, push.socket}
		if push.N <= last[from] {
			run.cluster.t.Errorf("%s: socket %d of %s got push %d of %s after %d",
				run.name, push.socket, c.user.name, push.N, push.From, last[from])
		}
		last[from] = push.N
	}
}

// logEntry is an entry of the log of changes.
type logEntry struct {
	online bool
	at     string
}

// newChanges reads what was logged since it was last called, by user.
func (c *cluster) newChanges() map[string][]logEntry {
	c.t.Helper()
	entries, err := c.redis("XRANGE", c.prefix+"{0}:log", "("+c.lastLogID, "+").AsXRange()
	if err != nil {
		c.t.Fatal(err)
	}
	changes := map[string][]logEntry{}
	for _, entry := range entries {
		user, online := entry.FieldValues["user"], entry.FieldValues["state"] == "online"
		changes[user] = append(changes[user], logEntry{online, entry.FieldValues["at"]})
		c.lastLogID = entry.ID
	}
	return changes
}

// wantFirstLog checks that the log has one entry for each user, who came online.
func (c *cluster) wantFirstLog() {
	c.t.Helper()
	changes := c.newChanges()
	for _, u := range c.pool.users {
		if entries := changes[u.name]; len(entries) != 1 || !entries[0].online {
			c.t.Errorf("%s connected, and the log has %v", u.name, entries)
		}
		u.loggedOnline = true
	}
}

// verifyLogLocked checks what was logged of a user.
func (run *faultRun) verifyLogLocked(u *user, changes []logEntry, stayed bool) {
	t := run.cluster.t
	switch {
	case len(changes) == 0:
	case stayed && !u.movedLocked(run.lostState):
		t.Errorf("%s: %s stayed, and the log has %v", run.name, u.name, changes)
	case u.loggedOnline && !run.mayBeLoggedOfflineLocked(u):
		t.Errorf("%s: %s was gone for less than a grace, and the log has %v", run.name, u.name, changes)
	}
	for _, change := range changes {
		if change.online == u.loggedOnline && !run.lostState {
			t.Errorf("%s: the log says twice of %s that online is %v: %v", run.name, u.name, change.online,
				changes)
		}
		u.loggedOnline = change.online
	}
	if online := u.online > 0; u.loggedOnline != online && (!run.lostState || len(changes) > 0) {
		t.Errorf("%s: the log ends with online = %v for %s, who is %v", run.name, u.loggedOnline, u.name,
			online)
	}
	u.loggedOnline = u.online > 0
}

// mayBeLoggedOfflineLocked says whether the run gave a reason to log a user as offline who was online before.
func (run *faultRun) mayBeLoggedOfflineLocked(u *user) bool {
	gap := u.gap
	if u.online == 0 && !u.lastGone.IsZero() {
		gap = max(gap, time.Since(u.lastGone))
	}
	cutOff := slices.ContainsFunc(run.cluster.nodes, func(n *node) bool {
		return n.cutOffFor() >= clusterGrace
	})
	return gap >= clusterGrace || u.left || cutOff || run.lostState
}

// movedLocked says whether a client of the user reconnected while Redis had lost that the user is online.
func (u *user) movedLocked(lostState bool) bool {
	return lostState && slices.ContainsFunc(u.clients, func(c *client) bool { return c.breaks > 0 })
}

// sinces reads since when users are online.
func (c *cluster) sinces() map[string]time.Time {
	c.t.Helper()
	users, _, err := c.serving()[0].readPresence("/presence?limit=1000")
	if err != nil {
		c.t.Fatal(err)
	}
	sinces := map[string]time.Time{}
	for name, view := range users {
		if view.Since != nil {
			sinces[name] = *view.Since
		}
	}
	return sinces
}

// verifySinceLocked checks since when a user is reported to be online.
func (run *faultRun) verifySinceLocked(u *user, changes []logEntry, since time.Time) {
	const (
		rounding = 2 * time.Millisecond
		transit  = redis.Timeout // after a loss, what is mirrored again was observed a call earlier
	)
	if u.online == 0 || !run.cluster.sharesClock {
		return
	}
	earliest := time.Now()
	for _, c := range u.clients {
		if !c.reachable.IsZero() && c.reachable.Before(earliest) {
			earliest = c.reachable
		}
	}
	t := run.cluster.t
	switch {
	case since.After(earliest.Add(transit)):
		t.Errorf("%s: %s is online since %v, and reported since %v", run.name, u.name, earliest, since)
	case len(changes) == 0 && !run.lostState && !u.since.IsZero() && since.After(u.since.Add(rounding)):
		t.Errorf("%s: %s did not go, and since was %v and is %v", run.name, u.name, u.since, since)
	}
	u.since = since
}

// verifyReadsLocked checks that no user who stayed was read as offline.
func (run *faultRun) verifyReadsLocked(cutOff map[string]time.Duration) {
	stayed := map[string]bool{}
	for _, u := range run.cluster.pool.users {
		stayed[u.name] = u.stayedLocked(cutOff, 1)
	}
	wrong := 0
	for _, read := range run.reads {
		if !stayed[read.user] || read.node.cutOffFor() > 0 {
			continue
		}
		run.cluster.report.count(run.name, read.state, 1)
		if read.state == "offline" {
			wrong++
		}
	}
	if wrong > 0 {
		run.cluster.t.Errorf("%s: users who stayed were read as offline %d times", run.name, wrong)
	}
}
