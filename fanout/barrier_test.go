package fanout

import (
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestBarrier_WaitsForEmits(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 2)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		alice := a.join("alice")
		open := alice.shut()
		if _, err := b.bus.Emit(t.Context(), Emit{Frame: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		caughtUp := make(chan error, 1)
		go func() { caughtUp <- a.bus.Barrier(t.Context()) }()
		redistest.Await(t, "it to wait behind the emit", func() bool { return len(a.bus.emitter.queue) == 1 })
		select {
		case err := <-caughtUp:
			t.Errorf("caught up with an emit under way: %v", err)
		default:
		}
		open()
		if err := <-caughtUp; err != nil {
			t.Error(err)
		}
		alice.mu.Lock()
		defer alice.mu.Unlock()
		if want := []string{"x"}; !slices.Equal(alice.frames, want) {
			t.Errorf("got %q by then, want %q", alice.frames, want)
		}
	})
}

func TestBarrier_IsPassedWhenWhatWaitedIsHandedOver(t *testing.T) {
	s := newStill()
	s.open("mallory", 1)
	s.open("alice", 1)
	s.arrive(t, pushTo("mallory", "0"), pushTo("mallory", "1"), pushTo("alice", "0"))
	b := newMark(s.workers)
	s.arrive(t, pushTo("mallory", "after"))
	for {
		select {
		case <-b.passed:
			s.wantWritten(t, "mallory 0", "alice 0", "mallory 1")
			return
		default:
		}
		if !s.workers[0].step() {
			t.Fatal("it is never passed")
		}
	}
}
