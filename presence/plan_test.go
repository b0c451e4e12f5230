package presence

import (
	"testing"
	"time"
)

func TestPlan_DecidesWhatRedisIsTold(t *testing.T) {
	now := time.Now()
	came, soon, late := now.Add(-time.Hour), now.Add(-time.Millisecond), now.Add(-time.Minute)
	sockets, grace, gone := Count{Sockets: 2}, Count{Kind: InGrace}, Count{Kind: Gone}
	const epoch, before = 7, 6
	for name, c := range map[string]struct {
		dirty dirtyUser
		count Count
		at    time.Time
		want  string // as mirror.lua takes it
		ago   time.Duration
	}{
		"sockets are told with their number, and when the user came": {
			dirtyUser{changedAt: now}, sockets, came, "2", time.Hour},
		"a user who came and dropped since the last write is in a grace": {
			dirtyUser{changedAt: soon}, grace, soon, "grace", time.Millisecond},
		"so is one who came and left on purpose before the shortest stay was over": {
			dirtyUser{changedAt: soon, leftOnPurpose: true}, grace, soon, "grace", time.Millisecond},
		"a user mirrored before is in a grace only if Redis does not say offline": {
			dirtyUser{changedAt: soon, mirroredBefore: true}, grace, soon, "grace-if-present", time.Millisecond},
		"a user mirrored before who left on purpose too early ends graces elsewhere": {
			dirtyUser{changedAt: soon, mirroredBefore: true, leftOnPurpose: true}, grace, soon,
			"left-early", time.Millisecond},
		"but not if that could not be written for long": {
			dirtyUser{changedAt: late, mirroredBefore: true, leftOnPurpose: true}, grace, late,
			"grace-if-present", time.Minute},
		"the end of a grace tells when the last socket went": {
			dirtyUser{changedAt: late, mirroredBefore: true}, gone, time.Time{}, "gone", time.Minute},
		"a goodbye ends graces elsewhere": {
			dirtyUser{changedAt: soon, mirroredBefore: true, leftOnPurpose: true}, gone, time.Time{},
			"left", time.Millisecond},
		"a goodbye that comes late ends no grace that began since": {
			dirtyUser{changedAt: now.Add(-lateGoodbye), mirroredBefore: true, leftOnPurpose: true}, gone, time.Time{},
			"gone", lateGoodbye},
		"a user whom Redis shows here by mistake went just now": {
			dirtyUser{}, gone, time.Time{}, "gone", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan("alice", c.dirty, c.count, c.at, false, epoch, now)
			if got.count.String() != c.want || now.Sub(got.at) != c.ago || !got.write || got.deferred {
				t.Errorf("decided %v, %v ago, write %v, deferred %v; want %s, %v ago, written at once",
					got.count, now.Sub(got.at), got.write, got.deferred, c.want, c.ago)
			}
			if got.user != "alice" || got.mirroredBefore != c.dirty.mirroredBefore {
				t.Errorf("the change is %+v", got.change)
			}
		})
	}
}

func TestPlan_DefersGoingWhileOthersMayHaveToTellRedisTheirs(t *testing.T) {
	now := time.Now()
	changed := dirtyUser{changedAt: now, mirroredBefore: true}
	left, told, toldBefore := changed, changed, changed
	left.leftOnPurpose, told.deferredEpoch, toldBefore.deferredEpoch = true, 7, 6
	for name, c := range map[string]struct {
		dirty           dirtyUser
		count           Count
		want            string
		write, deferred bool
	}{
		"sockets are told at once":                    {changed, Count{Sockets: 1}, "1", true, false},
		"so is a user who came and dropped":           {dirtyUser{changedAt: now}, Count{Kind: InGrace}, "grace", true, false},
		"who is gone is told to be in a grace":        {changed, Count{Kind: Gone}, "grace-if-present", true, true},
		"who left on purpose, too":                    {left, Count{Kind: Gone}, "grace-if-present", true, true},
		"who left too early ends no graces elsewhere": {left, Count{Kind: InGrace}, "grace-if-present", true, true},
		"a grace is looked at again":                  {changed, Count{Kind: InGrace}, "grace-if-present", true, true},
		"what was told once is not told again":        {told, Count{Kind: Gone}, "grace-if-present", false, true},
		"unless that was under an earlier epoch":      {toldBefore, Count{Kind: Gone}, "grace-if-present", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan("alice", c.dirty, c.count, now, true, 7, now)
			if got.count.String() != c.want || got.write != c.write || got.deferred != c.deferred {
				t.Errorf("decided %v, write %v, deferred %v; want %s, %v, %v",
					got.count, got.write, got.deferred, c.want, c.write, c.deferred)
			}
		})
	}
}

func TestMergeDirty_KeepsWhatRedisMustStillBeTold(t *testing.T) {
	earlier, now := time.Now().Add(-time.Second), time.Now()
	goodbye := dirtyUser{changedAt: earlier, leftOnPurpose: true, mirroredBefore: true}
	for name, c := range map[string]struct{ older, newer, want dirtyUser }{
		"a goodbye that could not be written is kept when the user is only marked": {
			goodbye, dirtyUser{}, goodbye},
		"a change replaces a goodbye": {
			goodbye, dirtyUser{changedAt: now}, dirtyUser{changedAt: now, mirroredBefore: true}},
		"a user of whom nothing was written yet was not mirrored before, whatever happens since": {
			dirtyUser{changedAt: earlier}, dirtyUser{changedAt: now, mirroredBefore: true}, dirtyUser{changedAt: now}},
		"a deferred user who is marked is written again": {
			dirtyUser{changedAt: earlier, deferredEpoch: 3}, dirtyUser{}, dirtyUser{changedAt: earlier}},
		"a mark after a mark is one": {
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
	const renewEvery, grace = 2 * time.Second, 15 * time.Second
	now := time.Now()
	ago := func(d time.Duration) dataLoss {
		return dataLoss{noticed: now.Add(-d), renewEvery: renewEvery, grace: grace}
	}
	refilling := ago(time.Hour)
	refilling.refilling = true
	for name, c := range map[string]struct {
		loss                     dataLoss
		recovering, deferOffline bool
	}{
		"nothing was ever lost": {dataLoss{renewEvery: renewEvery, grace: grace}, false, false},
		"just noticed":          {ago(0), true, true},
		"others renew their lease in time, and try again once":  {ago(renewEvery + backoffMax - 1), true, true},
		"after that they have noticed, and fill Redis again":    {ago(renewEvery + backoffMax), false, true},
		"until the grace is over, nobody goes":                  {ago(grace - 1), false, true},
		"then it is as if nothing had been lost":                {ago(grace), false, false},
		"our own users are not all there, however long it took": {refilling, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			if r, d := c.loss.recovering(now), c.loss.deferOffline(now); r != c.recovering || d != c.deferOffline {
				t.Errorf("recovering %v, deferring %v; want %v, %v", r, d, c.recovering, c.deferOffline)
			}
		})
	}
}
