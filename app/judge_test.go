package main

import (
	"slices"
	"time"
)

// judge compares what was seen in a step with what the clients know.
func (s *step) judge() {
	s.w.t.Helper()
	c := s.w.regulars
	alone := map[string]time.Duration{} // instance → how long it alone could not talk to Redis
	for _, n := range s.w.sites {
		alone[n.now().Instance] = n.aloneFor()
	}
	changes := s.w.newChanges()
	sinces := s.w.sinces()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.judgePushesLocked(alone)
	for _, m := range c.members {
		s.judgeOrderLocked(m)
	}
	for _, p := range c.people {
		s.judgeLogLocked(p, changes[p.name], p.stayedLocked(alone, worldGrace))
		s.judgeSinceLocked(p, changes[p.name], sinces[p.name])
	}
	s.judgeReadsLocked(alone)
}

// stayedLocked says whether a client of the person was connected throughout to an instance that was alone for less than a time.
func (p *person) stayedLocked(alone map[string]time.Duration, less time.Duration) bool {
	return slices.ContainsFunc(p.members, func(m *member) bool {
		return m.breaks == 0 && m.instance != "" && alone[m.instance] < less
	})
}

// judgePushesLocked wants every push that was answered as taken to have come, once, if the person's clients were there throughout,
// or were only sent on by instances that stopped.
func (s *step) judgePushesLocked(alone map[string]time.Duration) {
	people := map[string]*person{}
	for _, p := range s.w.regulars.people {
		people[p.name] = p
	}
	lost := 0
	for _, push := range s.promises {
		sentOn, fair, came := false, true, 0
		instances := map[string]bool{}
		for _, m := range people[push.user].members {
			fair = fair && m.breaks == m.goaways && alone[m.instance] == 0
			sentOn = sentOn || m.goaways > 0
			if m.heard[push.id] > 0 {
				instances[m.instance] = true
				came++
			}
		}
		switch {
		case !fair:
		case came < push.written:
			s.w.t.Errorf("%s: a push was written to %d sockets of %s, and came to %d", s.name, push.written, push.user, came)
		case came == 0, !sentOn && len(instances) < push.instances:
			lost++
		}
	}
	if lost > 0 && !s.discard && !s.away { // an instance out of reach looks like a living one until its lease lapses
		s.w.t.Errorf("%s: %d of %d pushes were answered as taken, and did not come", s.name, lost, len(s.promises))
	}
	s.w.report.count(s.name, "pushes", len(s.promises))
	s.w.report.count(s.name, "lost", lost)
}

// judgeOrderLocked wants what came to each socket to have come in order and once, whatever its sender was told. A client that moves
// while its push is looked for may get that through both its sockets.
func (s *step) judgeOrderLocked(m *member) {
	type source struct {
		from   string
		socket int
	}
	last := map[source]int{}
	for _, h := range m.order {
		from := source{h.From, h.socket}
		if h.N <= last[from] {
			s.w.t.Errorf("%s: socket %d of %s got push %d of %s after %d", s.name, h.socket, m.person.name, h.N, h.From, last[from])
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
func (w *world) newChanges() map[string][]logEntry {
	w.t.Helper()
	entries, err := w.redis("XRANGE", w.prefix+"{0}:log", "("+w.logged, "+").AsXRange()
	if err != nil {
		w.t.Fatal(err)
	}
	changes := map[string][]logEntry{}
	for _, entry := range entries {
		user := entry.FieldValues["user"]
		changes[user] = append(changes[user], logEntry{entry.FieldValues["state"] == "online", entry.FieldValues["at"]})
		w.logged = entry.ID
	}
	return changes
}

// wantFirstLog wants the log to hold that everybody came, once.
func (w *world) wantFirstLog() {
	w.t.Helper()
	changes := w.newChanges()
	for _, p := range w.regulars.people {
		if came := changes[p.name]; len(came) != 1 || !came[0].online {
			w.t.Errorf("%s came, and the log has %v", p.name, came)
		}
		p.logged = true
	}
}

// judgeLogLocked wants nothing in the log of somebody who stayed; of others, coming and going in turn, and going only with a reason.
func (s *step) judgeLogLocked(p *person, changes []logEntry, stayed bool) {
	gap, t := p.gap, s.w.t
	if p.online == 0 && !p.gone.IsZero() {
		gap = max(gap, time.Since(p.gone))
	}
	cut := slices.ContainsFunc(s.w.sites, func(n *site) bool { return n.aloneFor() >= worldGrace })
	switch {
	case stayed && len(changes) > 0 && !p.movedLocked(s.lossy):
		t.Errorf("%s: %s stayed, and the log has %v", s.name, p.name, changes)
	case len(changes) > 0 && p.logged && gap < worldGrace && !p.left && !cut && !s.lossy:
		t.Errorf("%s: %s was gone for %v only, and the log has %v", s.name, p.name, gap, changes)
	}
	for _, change := range changes {
		if change.online == p.logged && !s.lossy {
			t.Errorf("%s: the log says of %s twice that online is %v: %v", s.name, p.name, change.online, changes)
		}
		p.logged = change.online
	}
	if online := p.online > 0; p.logged != online && (!s.lossy || len(changes) > 0) {
		t.Errorf("%s: the log ends with online = %v for %s, who is %v", s.name, p.logged, p.name, online)
	}
	p.logged = p.online > 0
}

// movedLocked says whether a client of the person came anew while Redis had lost that the person was there.
func (p *person) movedLocked(lossy bool) bool {
	return lossy && slices.ContainsFunc(p.members, func(m *member) bool { return m.breaks > 0 })
}

// sinces are the times since when people are online.
func (w *world) sinces() map[string]time.Time {
	w.t.Helper()
	users, _, err := w.serving()[0].tell("/presence?limit=1000")
	if err != nil {
		w.t.Fatal(err)
	}
	sinces := map[string]time.Time{}
	for name, u := range users {
		if u.Since != nil {
			sinces[name] = *u.Since
		}
	}
	return sinces
}

// judgeSinceLocked wants since to stay what it was, unless the person was offline meanwhile, or Redis forgot: then it is as far back
// as the clients that are there now.
func (s *step) judgeSinceLocked(p *person, changes []logEntry, since time.Time) {
	const rounding, transit = 2 * time.Millisecond, redisTimeout // when it was forgotten, what is told anew is told a call later
	if p.online == 0 || !s.w.near {
		return
	}
	earliest := time.Now()
	for _, m := range p.members {
		if !m.reachable.IsZero() && m.reachable.Before(earliest) {
			earliest = m.reachable
		}
	}
	switch {
	case since.After(earliest.Add(transit)):
		s.w.t.Errorf("%s: %s is there since %v, and is told to be since %v", s.name, p.name, earliest, since)
	case len(changes) == 0 && !s.lossy && !p.since.IsZero() && since.After(p.since.Add(rounding)):
		s.w.t.Errorf("%s: %s did not go, and since was %v and is %v", s.name, p.name, p.since, since)
	}
	p.since = since
}

// judgeReadsLocked wants nobody to have been told to be offline who was connected throughout to an instance that could talk to Redis.
func (s *step) judgeReadsLocked(alone map[string]time.Duration) {
	there := map[string]bool{}
	for _, p := range s.w.regulars.people {
		there[p.name] = p.stayedLocked(alone, 1)
	}
	wrong := 0
	for _, g := range s.glimpses {
		if !there[g.user] || g.teller.aloneFor() > 0 {
			continue
		}
		s.w.report.count(s.name, g.state, 1)
		if g.state == "offline" {
			wrong++
		}
	}
	if wrong > 0 {
		s.w.t.Errorf("%s: people who stayed were told to be offline %d times", s.name, wrong)
	}
}
