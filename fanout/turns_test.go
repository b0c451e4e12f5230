package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestASocketThatHoldsUpAPushHoldsUpNoOtherUsersPush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		l := a.bus.routers[0]
		alice := a.join("alice")
		open := alice.shut()
		late := make(chan Outcome, 1)
		go func() { late <- a.bus.push(context.Background(), Push{User: "alice", Frame: []byte("late")}) }()
		redistest.Await(t, "the push to be held up", func() bool {
			l.queue.mu.Lock()
			defer l.queue.mu.Unlock()
			return l.queue.admitted == 1
		})
		ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
		defer cancel()
		context.AfterFunc(ctx, open)   // or this would wait for ever, if it fails
		for n := range batchMost + 1 { // more than a call takes, and so many users that some would share whatever is shared
			other := a.join(userOf(n))
			got := a.bus.push(ctx, Push{User: other.User, Frame: []byte("x")})
			if want := (Outcome{State: presence.Online, Instances: 1}); got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
			other.wantFrames("x")
		}
		select {
		case got := <-late:
			t.Fatalf("the others were served after alice, whose push ended with %+v", got)
		default:
		}
		open()
		if got := <-late; got.Err != nil {
			t.Error(got.Err)
		}
		alice.wantFrames("late")
		l.locks.mu.Lock()
		defer l.locks.mu.Unlock()
		if len(l.locks.users) > 0 {
			t.Errorf("%d users are remembered for ever", len(l.locks.users))
		}
	})
}

func TestAPushIsGivenUpWhenItsCallerStopsWaiting(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	first := a.holdQueue("alice", "first")
	patient := a.bus.Begin([]Push{{User: "alice", Frame: []byte("patient")}}, time.Now().Add(redistest.Patience))
	var hasty []*Ticket
	for _, wait := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
		hasty = append(hasty, a.bus.Begin([]Push{{User: "alice", Frame: []byte("hasty")}}, time.Now().Add(wait)))
	}
	for _, ticket := range hasty {
		if got := ticket.Wait(t.Context())[0]; !errors.Is(got.Err, context.DeadlineExceeded) {
			t.Errorf("%+v", got)
		}
	}
	server.Resume()
	for _, ticket := range []*Ticket{first, patient} {
		if got := ticket.Wait(t.Context())[0]; got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	alice.wantFrames("first", "patient")
}

func TestPushesForAUserComeInTheSameOrderOnEveryInstance(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		here, there := a.join("alice"), b.join("alice")
		const callers, each = 16, 100
		var calling sync.WaitGroup
		for caller := range callers {
			calling.Go(func() {
				for n := range each {
					a.push("alice", fmt.Sprintf("%d of %d", n, caller))
				}
			})
		}
		calling.Wait()
		there.wantFrames(here.take(callers * each)...)
	})
}

func TestALaneHasRoomForMoreThanItKeepsAtATime(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	users := make([]string, 1000)
	for i := range users {
		users[i] = userOf(i)
	}
	frame := strings.Repeat("x", 64<<10)
	for pushed := 0; pushed <= max(queuePushes, queueBytes/len(frame)); pushed += len(users) {
		pushes := toMany(users, frame)
		pushes[0].Shared = nil // one with a frame of its own
		for _, outcome := range a.bus.pushMany(t.Context(), pushes) {
			if outcome.Err != nil {
				t.Fatalf("after %d pushes: %v", pushed, outcome.Err)
			}
		}
	}
	q := a.bus.routers[0].queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.admitted != 0 || q.bytes != 0 || len(q.shared) != 0 {
		t.Errorf("%d pushes with %d bytes are still counted, %d shared frames", q.admitted, q.bytes, len(q.shared))
	}
}

func TestARouterThatStopsRoutesWhatItHadBegunToTake(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	open := alice.shut()
	bus := a.anotherBus()
	outcome := make(chan Outcome, 1)
	go func() { outcome <- bus.push(context.Background(), Push{User: "alice", Frame: []byte("x")}) }()
	queue := bus.routers[0].queue
	is := func(condition func() bool) func() bool {
		return func() bool { queue.mu.Lock(); defer queue.mu.Unlock(); return condition() }
	}
	redistest.Await(t, "the push to be admitted", is(func() bool { return queue.admitted == 1 }))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	stopped := make(chan struct{})
	go func() { defer close(stopped); bus.Run(ctx) }()
	redistest.Await(t, "the router to stop", is(func() bool { return queue.closed }))
	for range 10_000 {
		runtime.Gosched() // a chance to stop too early
	}
	select {
	case <-stopped:
		t.Error("it stopped while a push was admitted, and not queued yet")
	default:
	}
	open()
	<-stopped
	if got := <-outcome; got != (Outcome{State: presence.Online, Instances: 1}) {
		t.Errorf("%+v", got)
	}
	alice.wantFrames("x")
}

func TestLane_TakesNothingThatWasGivenUp(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	l := newShardRouter(a.bus, 0) // that does not run
	order := func(user string) *pendingPush {
		o := &newTicket([]Push{{User: user}}, time.Now().Add(time.Minute), nil).pushes[0]
		l.begin(o)
		return o
	}
	order("given up").complete(waiting, Outcome{Err: context.Canceled}, 0)
	order("alice")
	order("bob")
	order("last given up").complete(waiting, Outcome{Err: context.Canceled}, 0)
	for _, want := range [][]string{{"alice", "bob"}, nil} {
		var got []string
		for _, o := range l.queue.take(time.Now()) {
			got = append(got, o.push.User)
		}
		if !slices.Equal(got, want) {
			t.Errorf("took %q, want %q", got, want)
		}
	}
}
