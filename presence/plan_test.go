package presence

import (
	"testing"
	"time"
)

var (
	testNow  = time.Now()
	justNow  = testNow.Add(-time.Millisecond)
	aMinute  = testNow.Add(-time.Minute)
	anHour   = testNow.Add(-time.Hour)
	sockets2 = Count{Sockets: 2}
	inGrace  = Count{Kind: InGrace}
	isGone   = Count{Kind: Gone}
)

const testEpoch = 7

// dropped is a user mirrored before, whose last socket went by accident.
func dropped(at time.Time) dirtyUser { return dirtyUser{changedAt: at, mirroredBefore: true} }

// leaving is a user mirrored before, whose last socket was closed on purpose.
func leaving(at time.Time) dirtyUser {
	return dirtyUser{changedAt: at, mirroredBefore: true, leftOnPurpose: true}
}

func TestPlan_DecidesWhatRedisIsTold(t *testing.T) {
	never := time.Time{}
	for name, c := range map[string]struct {
		dirty dirtyUser
		count Count
		at    time.Time
		want  string // as mirror.lua takes it
		since time.Time
	}{
		"sockets: how many, and when the user came": {
			dropped(justNow), sockets2, anHour, "2", anHour},
		"came and dropped since the last write: a grace": {
			dirtyUser{changedAt: justNow}, inGrace, justNow, "grace", justNow},
		"came and left on purpose since the last write, before the shortest stay was over: a grace": {
			dirtyUser{changedAt: justNow, leftOnPurpose: true}, inGrace, justNow, "grace", justNow},
		"dropped: a grace, unless Redis says offline": {
			dropped(justNow), inGrace, justNow, "grace-if-present", justNow},
		"left on purpose before the shortest stay was over: so graces elsewhere end": {
			leaving(justNow), inGrace, justNow, "left-early", justNow},
		"left like that, but it could not be written for long: graces elsewhere may have begun since": {
			leaving(aMinute), inGrace, aMinute, "grace-if-present", aMinute},
		"the grace is over: gone, since the last socket went": {
			dropped(aMinute), isGone, never, "gone", aMinute},
		"left on purpose: graces elsewhere end": {
			leaving(justNow), isGone, never, "left", justNow},
		"left on purpose, but it could not be written for long: graces elsewhere may have begun since": {
			leaving(testNow.Add(-lateGoodbye)), isGone, never, "gone", testNow.Add(-lateGoodbye)},
		"Redis shows a user here by mistake: gone, since now": {
			dirtyUser{}, isGone, never, "gone", testNow},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan("alice", c.dirty, c.count, c.at, situation{now: testNow, epoch: testEpoch})
			if got.count.String() != c.want || got.at != c.since || !got.write || got.deferred {
				t.Errorf("decided %+v; want %s since %v, written now", got, c.want, c.since)
			}
			if got.user != "alice" || got.mirroredBefore != c.dirty.mirroredBefore {
				t.Errorf("the change is %+v", got.change)
			}
		})
	}
}

func TestPlan_DefersGoingWhileOthersMayHaveToTellRedisTheirs(t *testing.T) {
	told, toldBefore := dropped(aMinute), dropped(aMinute)
	told.deferredEpoch, toldBefore.deferredEpoch = testEpoch, testEpoch-1
	for name, c := range map[string]struct {
		dirty           dirtyUser
		count           Count
		want            string
		write, deferred bool
	}{
		"sockets are told now":          {dropped(justNow), sockets2, "2", true, false},
		"and who came and dropped":      {dirtyUser{changedAt: justNow}, inGrace, "grace", true, false},
		"gone: a grace goes on":         {dropped(aMinute), isGone, "grace-if-present", true, true},
		"left on purpose: too":          {leaving(justNow), isGone, "grace-if-present", true, true},
		"left early: no grace ends":     {leaving(justNow), inGrace, "grace-if-present", true, true},
		"a grace is looked at again":    {dropped(justNow), inGrace, "grace-if-present", true, true},
		"told before: not told again":   {told, isGone, "grace-if-present", false, true},
		"told in an epoch that is lost": {toldBefore, isGone, "grace-if-present", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := situation{now: testNow, epoch: testEpoch, deferOffline: true}
			got := plan("alice", c.dirty, c.count, aMinute, in)
			if got.count.String() != c.want || got.write != c.write || got.deferred != c.deferred {
				t.Errorf("decided %+v; want %s, write %v, deferred %v", got, c.want, c.write, c.deferred)
			}
		})
	}
}

func TestMergeDirty_KeepsWhatRedisMustStillBeTold(t *testing.T) {
	deferred := dropped(aMinute)
	deferred.deferredEpoch = testEpoch
	for name, c := range map[string]struct{ older, newer, want dirtyUser }{
		"a goodbye that could not be written stays when the user is only marked": {
			leaving(aMinute), dirtyUser{}, leaving(aMinute)},
		"a change replaces a goodbye": {
			leaving(aMinute), dropped(justNow), dropped(justNow)},
		"a user whose coming is not written yet was not mirrored before": {
			dirtyUser{changedAt: aMinute}, dropped(justNow), dirtyUser{changedAt: justNow}},
		"a deferred user who is marked is written again": {
			deferred, dirtyUser{}, dropped(aMinute)},
		"a mark after a mark is one mark": {
			dirtyUser{mirroredBefore: true}, dirtyUser{}, dirtyUser{mirroredBefore: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mergeDirty(c.older, c.newer); got != c.want {
				t.Errorf("merged to %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDataLoss_EndsWhenOthersHadTheirTime(t *testing.T) {
	const renewEvery, grace, othersNoticed = 2 * time.Second, 15 * time.Second, 2*time.Second + backoffMax
	ago := func(d time.Duration) dataLoss {
		return dataLoss{noticed: testNow.Add(-d), renewEvery: renewEvery, grace: grace}
	}
	never, refilling := dataLoss{renewEvery: renewEvery, grace: grace}, ago(time.Hour)
	refilling.refilling = true
	for name, c := range map[string]struct {
		loss                     dataLoss
		recovering, deferOffline bool
	}{
		"nothing was ever lost":                    {never, false, false},
		"just noticed":                             {ago(0), true, true},
		"others may not have renewed since":        {ago(othersNoticed - 1), true, true},
		"all have renewed, a grace is not over":    {ago(othersNoticed), false, true},
		"just before a grace is over":              {ago(grace - 1), false, true},
		"a grace is over":                          {ago(grace), false, false},
		"an hour ago, but our users are not there": {refilling, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			recovering, deferOffline := c.loss.recovering(testNow), c.loss.deferOffline(testNow)
			if recovering != c.recovering || deferOffline != c.deferOffline {
				t.Errorf("recovering %v, deferring %v; want %v, %v",
					recovering, deferOffline, c.recovering, c.deferOffline)
			}
		})
	}
}
