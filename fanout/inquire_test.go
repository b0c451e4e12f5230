package fanout

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestASecondLookFindsWhereTheUserIsNowUnlessALaterPushWasTaken(t *testing.T) {
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprint("later push ", later), func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, server *redistest.Server) {
				o := options(server, 1)
				a, b, c := startNode(t, "a", o), startNode(t, "b", o), startNode(t, "c", o)
				alice := c.join("alice")
				shows := func(owner string) { // what Redis shows of her
					server.Do(server.Client(), "HSET", presence.NewKeys(o.prefix, 1).Owners(0), "alice", "1 "+owner+".1:1")
				}
				shows("b")
				outcome, lookAgain := a.pushToWhoIsNotAt(b)
				l := a.router.lanes[0]
				shows("c")
				want, frames := Outcome{State: presence.Online, Instances: 1, Sockets: presence.Counts{Written: 1}}, []string{"first", "last"}
				if later {
					l.enqueueInTurn(&newTicket([]Push{{User: "alice", Frame: []byte("later")}}, time.Now().Add(patience)).orders[0], false)
					want, frames = Outcome{State: presence.Online}, []string{"later", "last"}
				}
				lookAgain()
				if got := <-outcome; got != want {
					t.Errorf("later push %v: %+v, want %+v", later, got, want)
				}
				a.wantPush("alice", "last", presence.Online, 1)
				alice.wantFrames(frames...)
				l.mu.Lock()
				defer l.mu.Unlock()
				if len(l.watched) > 0 {
					t.Errorf("%d users are watched for ever", len(l.watched))
				}
			})
		})
	}
}

// pushToWhoIsNotAt pushes to alice, of whom Redis shows sockets on an instance that has none. The second look, which that makes
// necessary, has to wait for lookAgain.
func (n *node) pushToWhoIsNotAt(wrong *node) (outcome <-chan Outcome, lookAgain func()) {
	n.t.Helper()
	ticket := n.router.Begin([]Push{{User: "alice", Frame: []byte("first"), Wait: Written}}, time.Now().Add(patience))
	l := n.router.lanes[0]
	turn := l.takeTurn("alice")
	told := make(chan Outcome, 1)
	go func() { told <- ticket.Wait(n.t.Context())[0] }()
	eventually(n.t, "it to say that she is not there", func() bool { return wrong.receiver.Dropped.Strays.Load() == 1 })
	return told, func() { l.endTurn(turn) }
}

func TestASecondLookThatFailsIsNotAnsweredAsIfItHadFoundNobody(t *testing.T) {
	for also, want := range map[string]Outcome{
		"":       {Err: ErrUnreachable},
		" c.1:1": {State: presence.Online, Instances: 1, Partial: true, Sockets: presence.Counts{Written: 1}},
	} {
		t.Run("with"+also, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, server *redistest.Server) {
				o := options(server, 1)
				a, b, c := startNode(t, "a", o), startNode(t, "b", o), startNode(t, "c", o)
				c.join("alice")
				owners := presence.NewKeys(o.prefix, 1).Owners(0)
				server.Do(server.Client(), "HSET", owners, "alice", "1 b.1:1"+also)
				outcome, lookAgain := a.pushToWhoIsNotAt(b)
				server.Do(server.Client(), "SET", owners, "of another type, which push.lua can't read")
				lookAgain()
				got := <-outcome
				if !errors.Is(got.Err, want.Err) {
					t.Errorf("with%q: %v, want %v", also, got.Err, want.Err)
				}
				if got.Err = want.Err; got != want {
					t.Errorf("with%q: %+v, want %+v", also, got, want)
				}
			})
		})
	}
}

func TestAPushOfWhichRedisDidNotSayWhoWasAskedIsNotTriedAgain(t *testing.T) {
	for local, want := range []Outcome{
		{Err: ErrUnreachable},
		{State: presence.Unknown, Instances: 1, Partial: true},
	} {
		t.Run(fmt.Sprint("local ", local), func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, server *redistest.Server) {
				a, _, alice := startWithAlice(t, server)
				ticket, l := newTicket([]Push{{User: "alice", Frame: []byte("once"), Wait: Written}}, time.Now().Add(patience)), a.router.lanes[0]
				o := &ticket.orders[0]
				if err := l.admit(o); err != nil || !o.claim(time.Now()) {
					t.Fatal(err)
				}
				l.taking.Done() // it is not queued
				o.local = local // sockets here got it
				o.inquiry.gather.onLocal(presence.Counts{})
				o.inquiry.gather.onReply("c", ownerReply{stray: true}.append(nil)) // and alice's reply is under way
				o.settle(sent, Outcome{Err: ErrUnreachable}, 0)
				if got := ticket.Wait(t.Context())[0]; got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				a.wantPush("alice", "last", presence.Online, 1)
				alice.wantFrames("last")
			})
		})
	}
}

func TestSocketsThatNobodyToldOfAreCountedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		acked   bool
		replies []presence.Counts
		reached int
		sockets int
		want    int // unanswered
	}{
		"all replied":                    {false, []presence.Counts{{Written: 2}}, 1, 2, 0},
		"nobody replied":                 {false, nil, 2, 3, 3},
		"one knows not of one of its":    {false, []presence.Counts{{Written: 1, Unanswered: 1}}, 2, 3, 2},
		"one waits for a client":         {true, []presence.Counts{{Written: 2, Unanswered: 1}}, 2, 3, 2},
		"who is silent has one at least": {false, []presence.Counts{{Written: 3}}, 2, 3, 1},
	} {
		g := newGather(c.acked)
		for n, counts := range c.replies {
			g.onReply(userOf(n), ownerReply{counts: counts}.append(nil))
		}
		g.onRouted(c.reached, c.sockets)
		if got, _ := g.result(); got.Unanswered != c.want {
			t.Errorf("%s: %d unanswered, want %d", name, got.Unanswered, c.want)
		}
	}
}
