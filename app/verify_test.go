package main

import (
	"slices"
	"time"

	"rollcall/app/redis"
)

// verify compares what was seen in a run with what the clients know.
func (run *faultRun) verify() {
	run.cluster.t.Helper()
	p := run.cluster.pool
	alone := map[string]time.Duration{} // instance → how long it alone could not talk to Redis
	for _, n := range run.cluster.nodes {
		alone[n.instance().Instance] = n.cutOffFor()
	}
	changes := run.cluster.newChanges()
	sinces := run.cluster.sinces()
	p.mu.Lock()
	defer p.mu.Unlock()
	run.verifyPushesLocked(alone)
	for _, c := range p.clients {
		run.verifyOrderLocked(c)
	}
	for _, u := range p.users {
		run.verifyLogLocked(u, changes[u.name], u.stayedLocked(alone, clusterGrace))
		run.verifySinceLocked(u, changes[u.name], sinces[u.name])
	}
	run.verifyReadsLocked(alone)
}

// stayedLocked says whether a client of the user was connected throughout to an instance that was alone for less than a time.
func (u *user) stayedLocked(alone map[string]time.Duration, less time.Duration) bool {
	return slices.ContainsFunc(u.clients, func(c *client) bool {
		return c.breaks == 0 && c.instance != "" && alone[c.instance] < less
	})
}

// verifyPushesLocked wants every push that was answered as taken to have come, once, if the user's clients were there throughout,
// or were only sent on by instances that stopped.
func (run *faultRun) verifyPushesLocked(alone map[string]time.Duration) {
	people := map[string]*user{}
	for _, u := range run.cluster.pool.users {
		people[u.name] = u
	}
	lost := 0
	for _, push := range run.pushes {
		sentOn, fair, came := false, true, 0
		instances := map[string]bool{}
		for _, c := range people[push.user].clients {
			fair = fair && c.breaks == c.goaways && alone[c.instance] == 0
			sentOn = sentOn || c.goaways > 0
			if c.frames[push.id] > 0 {
				instances[c.instance] = true
				came++
			}
		}
		switch {
		case !fair:
		case came < push.written:
			run.cluster.t.Errorf("%s: a push was written to %d sockets of %s, and came to %d", run.name, push.written, push.user, came)
		case came == 0, !sentOn && len(instances) < push.instances:
			lost++
		}
	}
	if lost > 0 && !run.lostMessages && !run.unreachable { // an instance out of reach looks like a living one until its lease lapses
		run.cluster.t.Errorf("%s: %d of %d pushes were answered as taken, and did not come", run.name, lost, len(run.pushes))
	}
	run.cluster.report.count(run.name, "pushes", len(run.pushes))
	run.cluster.report.count(run.name, "lost", lost)
}

// verifyOrderLocked wants what came to each socket to have come in order and once, whatever its sender was told. A client that moves
// while its push is looked for may get that through both its sockets.
func (run *faultRun) verifyOrderLocked(c *client) {
	type source struct {
		from   string
		socket int
	}
	last := map[source]int{}
	for _, h := range c.order {
		from := source{h.From, h.socket}
		if h.N <= last[from] {
			run.cluster.t.Errorf("%s: socket %d of %s got push %d of %s after %d", run.name, h.socket, c.user.name, h.N, h.From, last[from])
		}
		last[from] = h.N
	}
}

// change is an entry of the log.
type logEntry struct {
	online bool
	at     string
}

// newChanges reads what was logged since it was last read, by user.
func (c *cluster) newChanges() map[string][]logEntry {
	c.t.Helper()
	entries, err := c.redis("XRANGE", c.prefix+"{0}:log", "("+c.lastLogID, "+").AsXRange()
	if err != nil {
		c.t.Fatal(err)
	}
	changes := map[string][]logEntry{}
	for _, entry := range entries {
		user := entry.FieldValues["user"]
		changes[user] = append(changes[user], logEntry{entry.FieldValues["state"] == "online", entry.FieldValues["at"]})
		c.lastLogID = entry.ID
	}
	return changes
}

// wantFirstLog wants the log to hold that everybody came, once.
func (c *cluster) wantFirstLog() {
	c.t.Helper()
	changes := c.newChanges()
	for _, u := range c.pool.users {
		if came := changes[u.name]; len(came) != 1 || !came[0].online {
			c.t.Errorf("%s came, and the log has %v", u.name, came)
		}
		u.loggedOnline = true
	}
}

// verifyLogLocked wants nothing in the log of somebody who stayed; of others, coming and going in turn, and going only with a reason.
func (run *faultRun) verifyLogLocked(u *user, changes []logEntry, stayed bool) {
	gap, t := u.gap, run.cluster.t
	if u.online == 0 && !u.lastGone.IsZero() {
		gap = max(gap, time.Since(u.lastGone))
	}
	cut := slices.ContainsFunc(run.cluster.nodes, func(n *node) bool { return n.cutOffFor() >= clusterGrace })
	switch {
	case stayed && len(changes) > 0 && !u.movedLocked(run.lostState):
		t.Errorf("%s: %s stayed, and the log has %v", run.name, u.name, changes)
	case len(changes) > 0 && u.loggedOnline && gap < clusterGrace && !u.left && !cut && !run.lostState:
		t.Errorf("%s: %s was gone for %v only, and the log has %v", run.name, u.name, gap, changes)
	}
	for _, change := range changes {
		if change.online == u.loggedOnline && !run.lostState {
			t.Errorf("%s: the log says of %s twice that online is %v: %v", run.name, u.name, change.online, changes)
		}
		u.loggedOnline = change.online
	}
	if online := u.online > 0; u.loggedOnline != online && (!run.lostState || len(changes) > 0) {
		t.Errorf("%s: the log ends with online = %v for %s, who is %v", run.name, u.loggedOnline, u.name, online)
	}
	u.loggedOnline = u.online > 0
}

// movedLocked says whether a client of the user came anew while Redis had lost that the user was there.
func (u *user) movedLocked(lossy bool) bool {
	return lossy && slices.ContainsFunc(u.clients, func(c *client) bool { return c.breaks > 0 })
}

// sinces are the times since when users are online.
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

// verifySinceLocked wants since to stay what it was, unless the user was offline meanwhile, or Redis forgot: then it is as far back
// as the clients that are there now.
func (run *faultRun) verifySinceLocked(u *user, changes []logEntry, since time.Time) {
	const rounding, transit = 2 * time.Millisecond, redis.Timeout // when it was forgotten, what is told anew is told a call later
	if u.online == 0 || !run.cluster.sharesClock {
		return
	}
	earliest := time.Now()
	for _, c := range u.clients {
		if !c.reachable.IsZero() && c.reachable.Before(earliest) {
			earliest = c.reachable
		}
	}
	switch {
	case since.After(earliest.Add(transit)):
		run.cluster.t.Errorf("%s: %s is there since %v, and is told to be since %v", run.name, u.name, earliest, since)
	case len(changes) == 0 && !run.lostState && !u.since.IsZero() && since.After(u.since.Add(rounding)):
		run.cluster.t.Errorf("%s: %s did not go, and since was %v and is %v", run.name, u.name, u.since, since)
	}
	u.since = since
}

// verifyReadsLocked wants nobody to have been told to be offline who was connected throughout to an instance that could talk to Redis.
func (run *faultRun) verifyReadsLocked(alone map[string]time.Duration) {
	there := map[string]bool{}
	for _, u := range run.cluster.pool.users {
		there[u.name] = u.stayedLocked(alone, 1)
	}
	wrong := 0
	for _, g := range run.reads {
		if !there[g.user] || g.node.cutOffFor() > 0 {
			continue
		}
		run.cluster.report.count(run.name, g.state, 1)
		if g.state == "offline" {
			wrong++
		}
	}
	if wrong > 0 {
		run.cluster.t.Errorf("%s: people who stayed were told to be offline %d times", run.name, wrong)
	}
}
