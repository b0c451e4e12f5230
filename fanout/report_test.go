package fanout

import (
	"context"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestBus_HandedWaitsUntilOwnersHaveHandedThePushToTheirSockets(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a, b, alice := startWithAlice(t, server)
		open := alice.shut()
		push := []Push{{User: "alice", Frame: []byte("x"), Wait: Handed}}
		ticket := a.bus.Begin(push, time.Now().Add(redistest.Patience))
		outcome := make(chan Outcome, 1)
		go func() { outcome <- ticket.Wait(context.Background())[0] }()
		redistest.Await(t, "the push to come", func() bool {
			return stateOf(ticket) == completed && b.bus.Queued() == 1
		})
		select {
		case got := <-outcome:
			t.Errorf("before alice had it: %+v", got)
		default:
		}
		// it may be given up before it is sent
		hasty := a.bus.Begin(push, time.Now().Add(200*time.Millisecond))
		got := hasty.Wait(t.Context())[0]
		if got.Err == nil && got.Sockets != (presence.Counts{Unanswered: 1}) {
			t.Errorf("an owner that is behind: %+v", got)
		}
		open()
		if got, want := <-outcome, (Outcome{State: presence.Online, Instances: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		here := b.bus.Begin(push, time.Now().Add(redistest.Patience))
		if got := here.Wait(t.Context())[0]; got != (Outcome{State: presence.Online, Instances: 1}) {
			t.Errorf("to sockets here: %+v", got)
		}
	})
}

func TestCollector_CountsSocketsOfAnOwnerThatHasNoneAsGone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b, c := startNode(t, "a", o), startNode(t, "b", o), startNode(t, "c", o)
		c.join("alice")
		for entry, want := range map[string]Outcome{
			"1 b.1:2": {State: presence.Online, Sockets: presence.Counts{Gone: 2}},
			"1 b.1:2 c.1:1": {
				State: presence.Online, Instances: 1, Sockets: presence.Counts{Written: 1, Gone: 2},
			},
		} {
			before := b.bus.Dropped.NoSocket.Load()
			server.Do(server.Client(), "HSET", presence.NewKeys(o.prefix, 1).Owners(0), "alice", entry)
			got := a.bus.push(t.Context(), Push{User: "alice", Frame: []byte("x"), Wait: Written})
			if got != want {
				t.Errorf("with the entry %q: %+v, want %+v", entry, got, want)
			}
			if got := b.bus.Dropped.NoSocket.Load() - before; got != 1 {
				t.Errorf("%d were counted", got)
			}
		}
	})
}

func TestCollector_SaysNothingOfInstancesIfRedisDidNotSayWhichTookThePush(t *testing.T) {
	l := startNode(t, "a", options(redistest.StartInProcess(t), 1)).bus.routers[0]
	for local, want := range []Outcome{
		{Err: ErrUnreachable, Sockets: presence.Counts{Gone: 1}},
		{State: presence.Unknown, Instances: 1, Partial: true, Sockets: presence.Counts{Gone: 1}},
	} {
		push := Push{User: "alice", Frame: []byte("once"), Wait: Written}
		ticket := newTicket([]Push{push}, time.Now().Add(redistest.Patience), nil)
		o := &ticket.pushes[0]
		if err := l.bus.collectReports(o); err != nil || !o.markSent(time.Now()) {
			t.Fatal(err)
		}
		o.local = local // sockets here got it
		o.collector.onLocal(presence.Counts{})
		o.collector.onReply(envelope{frame: report{absent: true}.append(nil)})
		o.complete(sent, Outcome{Err: ErrUnreachable}, 0)
		if got := ticket.Wait(t.Context())[0]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestCollector_CountsSocketsThatNobodyReportedOnce(t *testing.T) {
	written, none := report{counts: presence.Counts{Written: 2}}, report{absent: true}
	behind := report{counts: presence.Counts{Written: 1, Unanswered: 1}}
	unconfirmed := report{counts: presence.Counts{Written: 2, Unanswered: 1}}
	for name, c := range map[string]struct {
		acked      bool
		replies    []report
		reached    int
		sockets    int
		gone       int
		unanswered int
	}{
		"all replied":                             {false, []report{written}, 1, 2, 0, 0},
		"nobody replied":                          {false, nil, 2, 3, 0, 3},
		"one is behind":                           {false, []report{behind}, 2, 3, 0, 2},
		"a client is late":                        {true, []report{unconfirmed}, 2, 3, 0, 2},
		"who is silent has one at least":          {false, []report{written}, 2, 2, 0, 1},
		"who has none had all that are missing":   {false, []report{written, none}, 2, 5, 3, 0},
		"who has none had one at least":           {false, []report{written, none}, 2, 2, 1, 0},
		"one has none, and one is silent":         {false, []report{none}, 2, 5, 1, 4},
		"one has none, and one is silent of none": {false, []report{written, none}, 3, 2, 1, 1},
	} {
		g := &collector{acked: c.acked, done: make(chan struct{})}
		for _, reply := range c.replies {
			g.onReply(envelope{frame: reply.append(nil)})
		}
		g.onRouted(c.reached, c.sockets)
		if got, _ := g.result(); got.Unanswered != c.unanswered || got.Gone != c.gone {
			t.Errorf("%s: %d gone, %d unanswered, want %d and %d",
				name, got.Gone, got.Unanswered, c.gone, c.unanswered)
		}
	}
}
