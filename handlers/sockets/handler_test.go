package sockets

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rollcall/fanout"
	"rollcall/presence"
)

// idleBus makes a bus that does not run: what is pushed waits for ever.
func idleBus() *fanout.Bus {
	log := slog.New(slog.DiscardHandler)
	redis := presence.Redis{Keys: presence.NewKeys("x", 1), Lease: time.Second}
	mirror, local := presence.NewMirror(presence.MirrorOptions{Redis: redis, Log: log})
	return fanout.NewBus(fanout.Options{Redis: redis, Sockets: local, Mirror: mirror, Log: log})
}

// onTheirWay is how many pushes wait in a bus.
func onTheirWay(bus *fanout.Bus) int {
	pushes, _ := bus.Waiting()
	return pushes
}

func TestResponder_WaitsWhenTooManyAnswersAreOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := idleBus()
		ctx, cancel := context.WithCancel(t.Context())
		alice := &socket{Socket: presence.Socket{User: "alice"}}
		res := &Responder{ctx: ctx, bus: bus, socket: alice, event: "x"}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range mirrorWindow + 1 {
				if err := res.Send(nil); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait()
		if got := onTheirWay(bus); got != mirrorWindow {
			t.Errorf("%d answers are on their way, want %d", got, mirrorWindow)
		}
		cancel() // nobody waits any more
		<-ended
		if got, failed := onTheirWay(bus), len(res.failed); got != mirrorWindow+1 || failed != mirrorWindow {
			t.Errorf("%d answers are on their way, %d have failed", got, failed)
		}
	})
}

func TestResponder_IsAtMostAWindowAheadOfOtherInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := idleBus()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		alice := &socket{Socket: presence.Socket{User: "alice"}}
		res := &Responder{ctx: ctx, bus: bus, socket: alice, event: "x"}
		for range 3 {
			if err := res.Send(nil); err != nil {
				t.Error(err)
			}
		}
		if _, reports := bus.Waiting(); reports != 1 {
			t.Errorf("%d answers are asked about, want the first", reports)
		}
		large := strings.Repeat("x", mirrorBytes) // one alone may be so large
		ended := make(chan struct{})
		go func() { defer close(ended); _ = res.Send(large) }()
		synctest.Wait()
		if got := onTheirWay(bus); got != 3 {
			t.Errorf("%d answers are on their way, want 3", got)
		}
		cancel()
		<-ended
		if got := onTheirWay(bus); got != 4 {
			t.Errorf("%d answers are on their way, want 4", got)
		}
	})
}
