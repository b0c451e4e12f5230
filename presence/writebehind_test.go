package presence

import (
	"context"
	"testing"
	"time"
)

// newWriteBehind is a mirror of one shard whose loop does not run, and the write-behind set of the shard.
func newWriteBehind() (*Mirror, *writeBehind) {
	m := newIdleMirror("a", Redis{Keys: NewKeys("x", 1), Grace: time.Hour})
	return m, &m.shards[0].writes
}

func TestWriteBehind_KeepsAGoodbyeThatCouldNotBeWritten(t *testing.T) {
	m, writes := newWriteBehind()
	goodbye := dirtyUser{changedAt: time.Now(), leftOnPurpose: true, mirroredBefore: true}
	writes.mark("alice", goodbye)
	writes.take()
	m.MarkDirty("alice") // another instance still believed that she is here
	writes.requeue()     // the write failed
	writes.clearInFlight()
	if got := writes.dirty["alice"]; got != goodbye {
		t.Errorf("to be written: %+v", got)
	}
}

func TestWriteBehind_WritesADeferredUserAgainWhoIsMarked(t *testing.T) {
	m, writes := newWriteBehind()
	writes.deferUser("alice", dirtyUser{changedAt: time.Now(), deferredEpoch: 1})
	writes.deferUser("bob", dirtyUser{changedAt: time.Now(), deferredEpoch: 1})
	m.MarkDirty("alice")
	writes.requeueDeferred()
	alice, bob := writes.dirty["alice"], writes.dirty["bob"]
	if alice.deferredEpoch != 0 || bob.deferredEpoch != 1 {
		t.Errorf("alice: %+v, bob: %+v", alice, bob)
	}
}

func TestWriteBehind_TellsASocketWhenItCanBeReachedUnlessItHasClosed(t *testing.T) {
	m, writes := newWriteBehind()
	noTime, cancel := context.WithCancel(t.Context())
	cancel()
	closed, closedBox := newSocket("alice")
	open, openBox := newSocket("alice")
	late, lateBox := newSocket("bob")
	m.Join(noTime, closed)
	m.Join(noTime, open)
	seq := writes.lastSeq()
	if m.Join(noTime, late) {
		t.Error("reachable, and nothing was ever written")
	}
	m.Leave(closed, false)
	writes.setFlushedTo(seq)
	<-openBox.reachable
	for name, box := range map[string]*inbox{"closed": closedBox, "too late": lateBox} {
		select {
		case <-box.reachable:
			t.Errorf("the socket that is %s is told", name)
		default:
		}
	}
	writes.setFlushedTo(writes.lastSeq())
	<-lateBox.reachable
	if len(writes.awaitingReachable) > 0 {
		t.Errorf("%d are remembered for ever", len(writes.awaitingReachable))
	}
}

func TestWriteBehind_HoldsAUserOnceHoweverOftenSocketsComeAndGo(t *testing.T) {
	m, _ := newWriteBehind()
	users := []string{"alice", "bob", "cathy"}
	for range 1000 {
		for _, user := range users {
			socket, _ := newSocket(user)
			m.sockets.Add(socket)
			m.sockets.Remove(socket, false)
		}
	}
	if got := m.Stats().Dirty; got != len(users) {
		t.Errorf("%d users are to be written, want %d", got, len(users))
	}
}
