package fanout

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rollcall/lua"
	"rollcall/lua/redistest"
)

// startPair starts two nodes on one Redis, which they soon find to be away.
func startPair(t *testing.T) (a, b *node, server *redistest.Server) {
	t.Helper()
	server = redistest.Start(t)
	o := options(server, 1)
	o.timeout = 500 * time.Millisecond
	a, b = startNode(t, "a", o), startNode(t, "b", o)
	for _, script := range []*lua.Script{lua.Claim, lua.Settle} { // or it would ask for them instead of doing them late
		_ = script.Exec(t.Context(), server.Client(), []string{"x"}, []string{"x", "", "1"})
	}
	return a, b, server
}

// once does something with the key k that answers with a text.
func (n *node) once(ctx context.Context, text string) (answer string, again bool, err error) {
	got, again, err := n.router.Once(ctx, "k", []byte("x"), func() ([]byte, error) { return []byte(text), nil })
	return string(got), again, err
}

// wantOnce wants what is done with the key k to answer this in the end, as the first or again.
func (n *node) wantOnce(text, want string, again bool) {
	n.t.Helper()
	var answer string
	var replayed bool
	eventually(n.t, "the key to be free or answered", func() bool {
		var err error
		answer, replayed, err = n.once(n.t.Context(), text)
		return err == nil
	})
	if answer != want || replayed != again {
		n.t.Errorf("got %s, again %v, want %s, %v", answer, replayed, want, again)
	}
}

func TestAClaimThatWasLostWithItsReplyKeepsNothingFromComingAgain(t *testing.T) {
	t.Parallel()
	a, b, server := startPair(t)
	server.Pause() // and what it is sent it will do when it resumes
	if _, _, err := a.once(t.Context(), "first"); !errors.Is(err, ErrNoClaim) {
		t.Errorf("without Redis: %v", err)
	}
	server.Resume()
	b.wantOnce("second", "second", false)
	a.wantOnce("third", "second", true)
}

func TestACallerThatGoesAwayWhileItClaimsMayComeAgain(t *testing.T) {
	t.Parallel()
	a, b, server := startPair(t)
	server.Pause()
	ctx, goAway := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _, err := a.router.Once(ctx, "k", []byte("x"), func() ([]byte, error) { return nil, ctx.Err() })
		if err == nil {
			t.Error("done for nobody")
		}
	}()
	goAway()
	<-gone
	server.Resume()
	b.wantOnce("second", "second", false)
}

func TestWhatBecameOfAClaimIsToldWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string
		err    error
		want   string
		again  bool
	}{
		"an answer":    {"first", nil, "first", true},
		"nothing done": {"", ErrBusy, "second", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, server := startPair(t)
			var err error
			eventually(t, "a to claim it", func() bool { // a slow Redis may not say in time that it has
				_, _, err = a.router.Once(t.Context(), "k", []byte("x"), func() ([]byte, error) {
					server.Pause()
					return []byte(c.answer), c.err
				})
				return !errors.Is(err, ErrNoClaim) && !errors.Is(err, ErrUnderWay)
			})
			if err != c.err {
				t.Errorf("got %v", err)
			}
			server.Resume()
			b.wantOnce("second", c.want, c.again)
		})
	}
}

func TestOnlyAClaimUnderWhichNothingWasSentIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ first, again error }{
		{ErrBusy, nil}, {ErrClosing, nil}, {context.Canceled, nil}, {ErrAsking, nil},
		{ErrUnreachable, ErrUnderWay}, // it may have got through
	} {
		server := redistest.StartInProcess(t)
		a := startNode(t, "a", options(server, 1))
		if _, _, err := a.router.Once(t.Context(), "k", []byte("x"), func() ([]byte, error) { return nil, c.first }); err != c.first {
			t.Errorf("got %v, want %v", err, c.first)
		}
		if _, _, err := a.once(t.Context(), "again"); err != c.again {
			t.Errorf("after %v: %v, want %v", c.first, err, c.again)
		}
	}
}

// hang claims the key k and stays there, as an instance that dies does after it may have sent something.
func (n *node) hang() {
	began, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _, err := n.router.Once(context.WithoutCancel(n.t.Context()), "k", []byte("x"), func() ([]byte, error) {
			close(began)
			<-end
			return nil, ErrUnreachable
		})
		if err != ErrUnreachable {
			n.t.Errorf("got %v", err)
		}
	}()
	n.t.Cleanup(func() { close(end); <-ended })
	<-began
}

// claimed is the one request with a key that Redis knows.
func claimed(t *testing.T, server *redistest.Server) (name, stored string) {
	t.Helper()
	names, err := server.Ask("KEYS", "*once:*").AsStrSlice()
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	stored, err = server.Ask("GET", names[0]).ToString()
	if err != nil {
		t.Fatal(err)
	}
	return names[0], stored
}

func TestAClaimWhoseInstanceDiedIsNotDoneAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		a.hang()
		if _, _, err := b.once(t.Context(), "again"); err != ErrUnderWay {
			t.Errorf("got %v", err)
		}
		name, _ := claimed(t, server)
		if ttl, _ := server.Ask("PTTL", name).AsInt64(); ttl <= 0 || ttl > OnceFor.Milliseconds() {
			t.Errorf("Redis forgets it in %d ms", ttl)
		}
	})
}

func TestALateSettlementLeavesTheClaimOfAnotherAlone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		a.hang()
		name, stored := claimed(t, server)
		fingerprint, _, _ := strings.Cut(stored, " ")
		if err := a.router.settler.tell(t.Context(), settlement{name: name, claim: fingerprint + " another"}); err != nil {
			t.Fatal(err)
		}
		if _, after := claimed(t, server); after != stored {
			t.Errorf("got %q, want %q", after, stored)
		}
	})
}

func TestSettlementsThatFindNoRoomAreDroppedAndCounted(t *testing.T) {
	s := newSettler(startNode(t, "a", options(redistest.StartInProcess(t), 1)).router.redis, nil)
	large := settlement{answer: string(make([]byte, unsettledMost-claimBytes))}
	s.later(large)
	s.later(settlement{})
	if got := s.dropped.Load(); got != 1 || len(s.waiting) != 1 {
		t.Errorf("%d were counted, %d wait", got, len(s.waiting))
	}
	if left := s.round(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	s.later(settlement{})
	if got := s.dropped.Load(); got != 1 || len(s.waiting) != 1 {
		t.Errorf("with room again %d were counted, %d wait", got, len(s.waiting))
	}
}

func TestASettlementThatCantBeToldHoldsUpNoOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a := startNode(t, "a", options(server, 1))
		a.hang()
		name, stored := claimed(t, server)
		s := newSettler(a.router.redis, nil)
		const wrong = "is a list"
		if err := server.Ask("RPUSH", wrong, "x").Error(); err != nil {
			t.Fatal(err)
		}
		s.later(settlement{name: wrong, claim: "x"})
		s.later(settlement{name: name, claim: strings.TrimSpace(stored), answer: "done"})
		if left := s.round(t.Context()); left != 1 {
			t.Errorf("%d are left", left)
		}
		if _, stored = claimed(t, server); !strings.HasSuffix(stored, "done") {
			t.Errorf("stored %q", stored)
		}
	})
}

func TestInstancesTogetherHaveRedisRememberABoundedNumberOfAnswers(t *testing.T) {
	o := options(redistest.StartInProcess(t), 1)
	a := startNode(t, "a", o)
	a.router.remembered.add(rememberedMost / 2)
	if _, _, err := a.once(t.Context(), "x"); err != nil {
		t.Errorf("alone, with half of what all may: %v", err)
	}
	startNode(t, "b", o)
	eventually(t, "a to see that there are two", func() bool { return a.mirror.LiveInstances() == 2 })
	if _, _, err := a.once(t.Context(), "x"); err != ErrKeys {
		t.Errorf("one of two, with half of what all may: %v", err)
	}
}

func TestWhatRedisForgetsMakesRoom(t *testing.T) {
	var now time.Duration // of the monotonic clock: what the machine's own does is nothing to it
	r := newRemembered(func() time.Duration { return now })
	var full []bool
	for _, after := range []time.Duration{0, time.Second, OnceFor - time.Second, OnceFor, OnceFor + time.Second, 10 * OnceFor} {
		now = after
		r.add(rememberedMost / 2)
		full = append(full, r.isFull(1))
	}
	if want := []bool{false, true, true, true, true, false}; !slices.Equal(full, want) {
		t.Errorf("full: %v, want %v", full, want)
	}
}
