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
		l := a.router.lanes[0]
		alice := a.join("alice")
		open := alice.shut()
		late := make(chan Outcome, 1)
		go func() { late <- a.router.Push(context.Background(), Push{User: "alice", Frame: []byte("late")}) }()
		redistest.Await(t, "the push to be held up", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.admitted == 1
		})
		ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
		defer cancel()
		context.AfterFunc(ctx, open)   // or this would wait for ever, if it fails
		for n := range batchMost + 1 { // more than a call takes, and so many users that some would share whatever is shared
			other := a.join(userOf(n))
			got := a.router.Push(ctx, Push{User: other.User, Frame: []byte("x")})
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
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.users) > 0 {
			t.Errorf("%d users are remembered for ever", len(l.users))
		}
	})
}

func TestAPushIsGivenUpWhenItsCallerStopsWaiting(t *testing.T) {
	server := redistest.Start(t)
	a, _, alice := startWithAlice(t, server)
	server.Pause()
	first := a.holdLane("alice", "first")
	patient := a.router.Begin([]Push{{User: "alice", Frame: []byte("patient")}}, time.Now().Add(redistest.Patience))
	var hasty []*Ticket
	for _, wait := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
		hasty = append(hasty, a.router.Begin([]Push{{User: "alice", Frame: []byte("hasty")}}, time.Now().Add(wait)))
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
	for pushed := 0; pushed <= max(laneOrders, laneBytes/len(frame)); pushed += len(users) {
		pushes := toMany(users, frame)
		pushes[0].Shared = nil // one with a frame of its own
		for _, outcome := range a.router.PushMany(t.Context(), pushes) {
			if outcome.Err != nil {
				t.Fatalf("after %d pushes: %v", pushed, outcome.Err)
			}
		}
	}
	l := a.router.lanes[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admitted != 0 || l.bytes != 0 || len(l.sharing) != 0 {
		t.Errorf("%d orders with %d bytes are still counted, %d frames in common", l.admitted, l.bytes, len(l.sharing))
	}
}

func TestARouterThatStopsRoutesWhatItHadBegunToTake(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	open := alice.shut()
	router := NewRouter(RouterOptions{Instance: "a", Redis: a.router.redis, Sockets: a.sockets, Receiver: a.receiver, Log: a.router.log})
	outcome := make(chan Outcome, 1)
	go func() { outcome <- router.Push(context.Background(), Push{User: "alice", Frame: []byte("x")}) }()
	lane := router.lanes[0]
	is := func(condition func() bool) func() bool {
		return func() bool { lane.mu.Lock(); defer lane.mu.Unlock(); return condition() }
	}
	redistest.Await(t, "the push to be admitted", is(func() bool { return lane.admitted == 1 }))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	stopped := make(chan struct{})
	go func() { defer close(stopped); router.Run(ctx) }()
	redistest.Await(t, "the router to stop", is(func() bool { return lane.closed }))
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
	l := newLane(0, a.router) // that does not run
	order := func(user string) *order {
		o := &newTicket([]Push{{User: user}}, time.Now().Add(time.Minute)).orders[0]
		l.enqueue(o)
		return o
	}
	order("given up").settle(queued, Outcome{Err: context.Canceled}, 0)
	order("alice")
	order("bob")
	order("last given up").settle(queued, Outcome{Err: context.Canceled}, 0)
	for _, want := range [][]string{{"alice", "bob"}, nil} {
		var got []string
		for _, o := range l.take() {
			got = append(got, o.push.User)
		}
		if !slices.Equal(got, want) {
			t.Errorf("took %q, want %q", got, want)
		}
	}
}
