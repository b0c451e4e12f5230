package presence

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// inbox is a connection that keeps what it is sent.
type inbox struct {
	mu        sync.Mutex
	frames    []string
	closed    bool
	reachable chan struct{}
}

func (i *inbox) Send(messages ...Message) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, message := range messages {
		if !i.closed {
			i.frames = append(i.frames, string(message.Frame))
		}
		if message.Tracker != nil {
			message.Tracker.Report(Written)
		}
	}
	return !i.closed
}

func (i *inbox) Close(int, string) {}

func (i *inbox) Reachable() { close(i.reachable) }

func newSocket(user string) (*Socket, *inbox) {
	box := &inbox{reachable: make(chan struct{})}
	return &Socket{ID: uuid.New(), User: user, Conn: box}, box
}

// newLocal is a map alone, with a list of the changes it told of.
func newLocal(grace time.Duration) (*Sockets, func() []string) {
	var mu sync.Mutex
	var changes []string
	s := NewSockets(Redis{Grace: grace, Keys: NewKeys("", 1)}, func(c countChange) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, fmt.Sprintf("%s %v", c.user, c.leftOnPurpose))
	})
	return s, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(changes)
	}
}

func TestSockets_DeliverToAllSocketsOfAUserExceptOne(t *testing.T) {
	s, _ := newLocal(testGrace)
	first, firstBox := newSocket("alice")
	second, secondBox := newSocket("alice")
	bob, bobBox := newSocket("bob")
	anonymous, anonymousBox := newSocket("")
	for _, socket := range []*Socket{first, second, bob, anonymous} {
		s.Add(socket)
	}
	if took := s.Of("alice").Deliver(first.ID, Message{Frame: []byte("x")}); took != 1 {
		t.Errorf("%d took it, want 1", took)
	}
	if took := s.Of("nobody").Deliver(uuid.Nil, Message{Frame: []byte("x")}); took != 0 {
		t.Errorf("%d took it, want 0", took)
	}
	some := &Emit{To: Authenticated, Message: Message{Frame: []byte("y")}}
	all := &Emit{To: Everybody, Message: Message{Frame: []byte("z")}}
	s.Emit([]*Emit{some, all}) // together
	if some.Took != 3 || all.Took != 4 {
		t.Errorf("%d and %d took them, want 3 and 4", some.Took, all.Took)
	}
	secondBox.closed = true
	if s.Emit([]*Emit{some}); some.Took != 2 {
		t.Errorf("%d took it, want 2 of 3: one is closed", some.Took)
	}
	for box, want := range map[*inbox][]string{
		firstBox: {"y", "z", "y"}, secondBox: {"x", "y", "z"}, bobBox: {"y", "z", "y"}, anonymousBox: {"z"},
	} {
		if !slices.Equal(box.frames, want) {
			t.Errorf("got %q, want %q", box.frames, want)
		}
	}
}

func TestSockets_CountSocketsThenAGraceThenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, changes := newLocal(testGrace)
		ctx, stop := context.WithCancel(t.Context())
		go s.endGraces(ctx)
		defer synctest.Wait()
		defer stop()
		wantCount := func(user, want string) {
			t.Helper()
			if got := s.Count(user).String(); got != want {
				t.Errorf("%s counts %s, want %s", user, got, want)
			}
		}
		a, _ := newSocket("alice")
		b, _ := newSocket("bob")
		again, _ := newSocket("alice")
		s.Add(a)
		s.Add(b)
		wantCount("alice", "1")
		wantCount("cathy", "gone")
		s.Remove(a, false) // dropped
		s.Remove(a, false) // twice is once
		wantCount("alice", "grace")
		time.Sleep(testGrace - time.Millisecond) // in the bubble no time passes by itself
		s.Add(again)
		time.Sleep(time.Minute)
		wantCount("alice", "1")
		s.Remove(b, true) // on purpose
		wantCount("bob", "gone")
		s.Remove(again, false)
		time.Sleep(testGrace)
		synctest.Wait()
		wantCount("alice", "gone")
		want := []string{
			"alice false", "bob false", "alice false", "alice false", "bob true",
			"alice false", "alice false",
		}
		if got := changes(); !slices.Equal(got, want) {
			t.Errorf("changes %v, want %v", got, want)
		}
		if sockets, users := s.Totals(); sockets != 0 || users != 0 {
			t.Errorf("%d sockets and %d users are left", sockets, users)
		}
		if len(s.appendUsers(nil, 0)) != 0 {
			t.Errorf("users left: %v", s.appendUsers(nil, 0))
		}
	})
}

func TestSockets_DeliverToARetiredSocketButDoNotCountIt(t *testing.T) {
	for _, length := range []time.Duration{0, testGrace} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := newLocal(length)
			ctx, stop := context.WithCancel(t.Context())
			go s.endGraces(ctx)
			defer synctest.Wait()
			defer stop()
			dropped := "gone" // without a grace
			if length > 0 {
				dropped = "grace"
			}
			wantCount := func(want string, delivered int) {
				t.Helper()
				if got := s.Count("alice").String(); got != want {
					t.Errorf("counts %s, want %s", got, want)
				}
				if got := s.Of("alice").Deliver(uuid.Nil, Message{Frame: []byte("x")}); got != delivered {
					t.Errorf("delivered to %d, want %d", got, delivered)
				}
			}
			phone, _ := newSocket("alice")
			laptop, _ := newSocket("alice")
			s.Add(phone)
			s.Add(laptop)
			s.Retire(phone)
			s.Retire(phone) // twice is once
			wantCount("1", 2)
			s.Retire(laptop)
			wantCount(dropped, 2)
			s.Remove(laptop, false)
			wantCount(dropped, 1)
			time.Sleep(testGrace)
			synctest.Wait()
			wantCount("gone", 1)
			again, _ := newSocket("alice")
			s.Add(again)
			wantCount("1", 2)
			s.Remove(phone, true) // on purpose, but there is another
			wantCount("1", 1)
			s.Retire(again)
			s.Remove(again, true)
			wantCount("gone", 0)
			if sockets, users := s.Totals(); sockets != 0 || users != 0 || len(s.appendUsers(nil, 0)) != 0 {
				t.Errorf("%d sockets and %d users are left, and %v", sockets, users, s.appendUsers(nil, 0))
			}
		})
	}
}

func TestSockets_BeginNoGraceWhenTheLastSocketClosesOnPurpose(t *testing.T) {
	s, _ := newLocal(testGrace)
	phone, _ := newSocket("alice")
	laptop, _ := newSocket("alice")
	s.Add(phone)
	s.Add(laptop)
	s.Remove(phone, false)
	s.Remove(laptop, true)
	if got := s.Count("alice"); got.Kind != Gone {
		t.Errorf("alice counts %v", got)
	}
}

func TestWalk_ServesSomeSocketsAtATimeAndEndsOnce(t *testing.T) {
	s, _ := newLocal(testGrace)
	const sockets = 10
	var left *Socket
	for range sockets {
		left, _ = newSocket("alice")
		s.Add(left)
	}
	var ends []Counts
	tracker := NewTracker(uuid.Nil, func(counts Counts) { ends = append(ends, counts) })
	walk := s.Of("alice").Sending(left.ID, Message{Frame: []byte("x"), Tracker: tracker})
	for n, want := range []bool{false, false, true} {
		if over := walk.Next(4); over != want || over != (len(ends) == 1) {
			t.Errorf("part %d: over is %v, and %v was told", n, over, ends)
		}
	}
	if want := (Counts{Written: sockets - 1}); ends[0] != want || walk.took != sockets-1 {
		t.Errorf("told %+v, and %d took it", ends[0], walk.took)
	}
	if found := s.Find(left.ID); len(found) != 1 || found[0] != left || len(s.Find(uuid.New())) != 0 {
		t.Errorf("found %v", found)
	}
	if over := (&Walk{}).Next(1); !over {
		t.Error("of nothing there is more to come")
	}
}
