package presence

import (
	"context"
	"rollcall/lua/redistest"
	"testing"
	"time"
)

func TestAGoodbyeThatCouldNotBeWrittenIsNotForgottenWhenTheUserIsMarkedOnceMore(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	s, at := m.shards[0], time.Now()
	s.touch("alice", false, true, at)
	taken := s.dirty // by a flush
	s.dirty = map[string]mark{}
	m.MarkDirty("alice") // somebody still believed that she is here
	s.putBack(taken)     // the flush failed
	if got := s.dirty["alice"].change("alice", m.sockets); got != (change{"alice", Count{Kind: left}, at, true}) {
		t.Errorf("to be written: %+v", got)
	}
}

func TestAGoodbyeThatComesLateEndsNoGraceThatBeganSince(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	late := mark{left: true, at: time.Now().Add(-backoffMax), known: true}
	if got := late.change("alice", m.sockets); got.count.Kind != Gone || got.at != late.at {
		t.Errorf("to be written: %+v", got)
	}
}

func TestWhoIsMarkedOnceMoreIsWrittenOnceMoreEvenIfAWriteFailed(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	s := m.shards[0]
	s.again("alice", true)
	s.putBack(map[string]mark{"alice": {kept: 1, at: time.Now()}})
	if got := s.dirty["alice"]; got.kept != 0 || got.at.IsZero() {
		t.Errorf("marked: %+v", got)
	}
}

func TestWhoCouldNotBeReachedIsToldWhenThatIsOverUnlessGoneByThen(t *testing.T) {
	m, _ := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys(redistest.Prefix(), 1)}})
	noTime, cancel := context.WithCancel(t.Context())
	cancel()
	goes, goesBox := newSocket("alice")
	stays, staysBox := newSocket("alice")
	late, lateBox := newSocket("bob")
	m.Join(noTime, goes)
	m.Join(noTime, stays)
	s := m.shards[0]
	mark := s.marked()
	if m.Join(noTime, late) {
		t.Error("reachable, and nothing was ever written")
	}
	m.Leave(goes, false)
	s.settle(mark)
	<-staysBox.reachable
	for name, box := range map[string]*inbox{"who is gone": goesBox, "who came after the write began": lateBox} {
		select {
		case <-box.reachable:
			t.Errorf("%s is told", name)
		default:
		}
	}
	s.settle(s.marked())
	<-lateBox.reachable
	if len(s.untold) > 0 {
		t.Errorf("%d are remembered for ever", len(s.untold))
	}
}
