package fanout

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rollcall/presence"
)

// queuePush admits a push and adds it.
func (q *shardQueue) queuePush(push Push) error {
	p := &newTicket([]Push{push}, time.Now().Add(time.Hour), nil).pushes[0]
	err := q.admit(p)
	if err == nil {
		q.add(p)
	}
	return err
}

// fill queues pushes until there is no room, and returns how many were queued.
func (q *shardQueue) fill(t *testing.T, push Push) (queued int) {
	t.Helper()
	for {
		switch err := q.queuePush(push); {
		case err == nil:
			queued++
		case errors.Is(err, ErrBusy):
			return queued
		default:
			t.Fatal(err)
		}
	}
}

func (q *shardQueue) empty() {
	for len(q.take(time.Now())) > 0 {
	}
}

func (q *shardQueue) wantEmpty(t *testing.T) {
	t.Helper()
	if q.admitted != 0 || q.bytes != 0 || len(q.shared) != 0 || q.clients != (usage{}) || len(q.byUser) != 0 {
		t.Errorf("the empty queue has %d pushes with %d bytes, %d shared frames, %+v of clients of %d users",
			q.admitted, q.bytes, len(q.shared), q.clients, len(q.byUser))
	}
}

func TestShardQueue_HasRoomForSoManyPushesAndBytes(t *testing.T) {
	const large = 1 << 20
	shared := &presence.Shared{}
	for name, c := range map[string]struct {
		push Push
		want int
	}{
		"small":               {Push{User: "alice"}, queuePushes},
		"large":               {Push{User: "alice", Frame: make([]byte, large)}, queueBytes / large},
		"large and shared":    {Push{User: "alice", Frame: make([]byte, large), Shared: shared}, queuePushes},
		"of a client":         {Push{User: "alice", FromClient: true}, userPushes},
		"of a client, large":  {Push{User: "alice", FromClient: true, Frame: make([]byte, userBytes/2)}, 2},
		"of a client, larger": {Push{User: "alice", FromClient: true, Frame: make([]byte, userBytes+1)}, 1},
	} {
		q := newShardQueue()
		for _, turn := range []string{"first", "second"} { // the second needs the room of the first
			if got := q.fill(t, c.push); got != c.want {
				t.Errorf("%s: the %s time %d are queued, want %d", name, turn, got, c.want)
			}
			q.empty()
			q.wantEmpty(t)
		}
	}
}

func TestShardQueue_KeepsRoomForOtherClientsAndForBackends(t *testing.T) {
	q := newShardQueue()
	for _, user := range []string{"mallory", "alice"} {
		if got := q.fill(t, Push{User: user, FromClient: true}); got != userPushes {
			t.Errorf("%s has %d pushes queued, want %d", user, got, userPushes)
		}
	}
	for n := range clientPushes / userPushes {
		q.fill(t, Push{User: userOf(n), FromClient: true})
	}
	if got := q.len(); got != clientPushes {
		t.Errorf("all clients have %d pushes queued, want %d", got, clientPushes)
	}
	if got := q.fill(t, Push{User: "mallory"}); got != queuePushes-clientPushes {
		t.Errorf("backends have %d pushes queued, want %d", got, queuePushes-clientPushes)
	}
	q.empty()
	q.wantEmpty(t)
}

func TestShardQueue_GivesBackTheRoomOfAPushThatIsWithdrawn(t *testing.T) {
	q := newShardQueue()
	push := Push{User: "alice", FromClient: true, Frame: []byte("x"), Shared: &presence.Shared{}}
	p := &newTicket([]Push{push}, time.Now().Add(time.Hour), nil).pushes[0]
	if err := q.admit(p); err != nil {
		t.Fatal(err)
	}
	q.withdraw(p)
	q.wantEmpty(t)
	q.close() // waits for nothing
	if err := q.admit(p); err != ErrClosing {
		t.Errorf("after that: %v, want %v", err, ErrClosing)
	}
}

func TestShardQueue_TakesWhatACallMayCarry(t *testing.T) {
	own := Push{User: "alice", Frame: make([]byte, 64_000)}
	shared := own
	shared.Shared = &presence.Shared{}
	for name, c := range map[string]struct {
		push Push
		want []int // how many are in each batch
	}{
		"small":  {Push{User: "alice"}, []int{batchMost, 44}},
		"large":  {own, slices.Repeat([]int{17}, 17)}, // 17 of them are more than batchBytes
		"shared": {shared, []int{batchMost, 44}},      // it counts once
	} {
		q := newShardQueue()
		pushes := 0
		for _, batch := range c.want {
			pushes += batch
		}
		for range pushes {
			if err := q.queuePush(c.push); err != nil {
				t.Fatal(err)
			}
		}
		var got []int
		for batch := q.take(time.Now()); len(batch) > 0; batch = q.take(time.Now()) {
			got = append(got, len(batch))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: batches of %v, want %v", name, got, c.want)
		}
	}
}

func TestShardQueue_SkipsPushesThatNobodyWaitsFor(t *testing.T) {
	q, now := newShardQueue(), time.Now()
	for _, c := range []struct {
		user    string
		until   time.Time
		givenUp bool
	}{
		{"given up", now.Add(time.Hour), true},
		{"alice", now.Add(time.Hour), false},
		{"late", now, false},
		{"bob", now.Add(time.Hour), false},
		{"late too", now.Add(-time.Second), false},
	} {
		p := &newTicket([]Push{{User: c.user}}, c.until, nil).pushes[0]
		if err := q.admit(p); err != nil {
			t.Fatal(err)
		}
		q.add(p)
		if c.givenUp {
			p.complete(waiting, Outcome{Err: context.Canceled}, 0)
		}
	}
	var got []string
	for _, p := range q.take(now) {
		got = append(got, p.push.User)
	}
	if want := []string{"alice", "bob"}; !slices.Equal(got, want) {
		t.Errorf("took %q, want %q", got, want)
	}
	q.wantEmpty(t)
}

func TestShardQueue_CloseWaitsUntilWhatWasAdmittedIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newShardQueue()
		p := &newTicket([]Push{{User: "alice"}}, time.Now().Add(time.Hour), nil).pushes[0]
		if err := q.admit(p); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() { defer close(closed); q.close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("it did not wait")
		default:
		}
		q.add(p)
		<-closed
		if got := len(q.take(time.Now())); got != 1 {
			t.Errorf("took %d pushes, want 1", got)
		}
	})
}
