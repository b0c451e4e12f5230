package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// fixture is two stores, as two instances have them, on one Redis.
type fixture struct {
	t      *testing.T
	server *redistest.Server
	client *faultyClient // of a
	a, b   *Store
}

func newFixture(t *testing.T, server *redistest.Server) *fixture {
	client := &faultyClient{Client: server.Client()}
	keys := presence.NewKeys(redistest.Prefix(), 1)
	newStore := func(client rueidis.Client) *Store {
		return NewStore(Options{
			Redis:         presence.Redis{Client: client, Keys: keys, Timeout: time.Minute},
			LiveInstances: func() int { return 2 },
			Log:           slog.New(slog.DiscardHandler),
		})
	}
	return &fixture{t: t, server: server, client: client, a: newStore(client), b: newStore(server.Client())}
}

// faultyClient fails the next calls, each in a way of its own.
type faultyClient struct {
	rueidis.Client
	faults []fault
}

type fault int

const (
	none  fault = iota
	unmet       // Redis never gets the command
	mute        // Redis does the command, and its reply is lost
)

var errFault = errors.New("the connection broke")

func (c *faultyClient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	next := none
	if len(c.faults) > 0 {
		next, c.faults = c.faults[0], c.faults[1:]
	}
	if next == unmet {
		return rueidis.NewErrorResult(errFault)
	}
	result := c.Client.Do(ctx, command)
	if next == mute {
		return rueidis.NewErrorResult(errFault)
	}
	return result
}

// learnScripts makes Redis know the scripts, so that each call of one is one command.
func (f *fixture) learnScripts() {
	for _, err := range []error{nil, errors.New("nothing was done")} {
		do := func() ([]byte, error) { return []byte("x"), err }
		_, _, _ = f.a.Do(f.t.Context(), "another key", nil, do)
	}
	if err := f.server.Ask("DEL", f.a.newClaim("another key", nil).redisKey).Error(); err != nil {
		f.t.Fatal(err)
	}
}

// request does something with the key k and a result.
func request(ctx context.Context, s *Store, result string, fail error) (string, bool, error) {
	do := func() ([]byte, error) { return []byte(result), fail }
	answer, replayed, err := s.Do(ctx, "k", []byte("x"), do)
	return string(answer), replayed, err
}

func (f *fixture) wantDone(s *Store, result string) {
	f.t.Helper()
	answer, replayed, err := request(f.t.Context(), s, result, nil)
	if answer != result || replayed || err != nil {
		f.t.Errorf("got %q, replayed %v, %v, want %q to be done", answer, replayed, err, result)
	}
}

func (f *fixture) wantReplayed(s *Store, want string) {
	f.t.Helper()
	answer, replayed, err := request(f.t.Context(), s, "a result of its own", nil)
	if answer != want || !replayed || err != nil {
		f.t.Errorf("got %q, replayed %v, %v, want %q again", answer, replayed, err, want)
	}
}

func (f *fixture) wantError(s *Store, want error) {
	f.t.Helper()
	if _, _, err := request(f.t.Context(), s, "x", nil); !errors.Is(err, want) {
		f.t.Errorf("got %v, want %v", err, want)
	}
}

// stored is what Redis holds of the key k.
func (f *fixture) stored() string {
	f.t.Helper()
	text, err := f.server.Ask("GET", f.a.newClaim("k", nil).redisKey).ToString()
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

func (f *fixture) wantExpiry() {
	f.t.Helper()
	left, err := f.server.Ask("PTTL", f.a.newClaim("k", nil).redisKey).AsInt64()
	if err != nil || left <= 0 || left > KeepFor.Milliseconds() {
		f.t.Errorf("Redis drops it in %d ms, %v", left, err)
	}
}

func TestDo_ReplaysTheFirstResultOnEveryInstance(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		f := newFixture(t, server)
		f.wantDone(f.a, "the result, with spaces")
		f.wantReplayed(f.a, "the result, with spaces")
		f.wantReplayed(f.b, "the result, with spaces")
		f.wantExpiry()
	})
}

func TestDo_RefusesAKeyThatCameWithAnotherRequest(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	f.wantDone(f.a, "x")
	_, _, err := f.b.Do(t.Context(), "k", []byte("y"), func() ([]byte, error) { return nil, nil })
	if !errors.Is(err, ErrKeyReused) {
		t.Errorf("got %v", err)
	}
}

func TestDo_RefusesARequestWhoseFirstIsInProgress(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		f := newFixture(t, server)
		_, _, err := f.a.Do(t.Context(), "k", []byte("x"), func() ([]byte, error) {
			f.wantError(f.b, ErrInProgress)
			f.wantExpiry()
			return []byte("first"), nil
		})
		if err != nil {
			t.Error(err)
		}
		f.wantReplayed(f.b, "first")
	})
}

func TestDo_FreesTheKeyUnlessTheRequestMayHaveHappened(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	for _, fail := range []error{errFault, context.Canceled} {
		if _, _, err := request(t.Context(), f.a, "x", fail); !errors.Is(err, fail) {
			t.Errorf("got %v, want %v", err, fail)
		}
	}
	if _, _, err := request(t.Context(), f.a, "x", ErrMayHaveHappened); !errors.Is(err, ErrMayHaveHappened) {
		t.Errorf("got %v", err)
	}
	f.wantError(f.b, ErrInProgress)
	f.wantExpiry()
}

func TestDo_FreesAKeyWhoseClaimLostItsReply(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		f := newFixture(t, server)
		f.learnScripts()
		f.client.faults = []fault{mute}
		f.wantError(f.a, ErrUnreachable)
		f.wantDone(f.b, "second")
	})
}

func TestDo_RefusesRepeatsOfAClaimThatLostItsReplyAndCouldNotBeFreed(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	f.learnScripts()
	f.client.faults = []fault{mute, unmet}
	f.wantError(f.a, ErrUnreachable)
	f.wantError(f.b, ErrInProgress)
	f.wantExpiry()
}

func TestDo_FreesTheKeyOfACallerThatGaveUpWhileItClaimed(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, _, err := request(ctx, f.a, "x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.wantDone(f.b, "second")
}

func TestDo_StoresTheResultAlsoIfItsCallerGaveUp(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	ctx, giveUp := context.WithCancel(t.Context())
	do := func() ([]byte, error) { giveUp(); return []byte("first"), nil }
	_, _, err := f.a.Do(ctx, "k", []byte("x"), do)
	if err != nil {
		t.Error(err)
	}
	f.wantReplayed(f.b, "first")
}

func TestDo_StoresTheResultAtTheSecondAttempt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for _, first := range []fault{unmet, mute} {
			f := newFixture(t, server)
			f.learnScripts()
			f.client.faults = []fault{none, first}
			f.wantDone(f.a, "first")
			f.wantReplayed(f.b, "first")

			f = newFixture(t, server)
			f.client.faults = []fault{none, first}
			if _, _, err := request(t.Context(), f.a, "", errFault); !errors.Is(err, errFault) {
				t.Errorf("got %v", err)
			}
			f.wantDone(f.b, "second")
			if lost := f.a.LostResults(); lost != 0 {
				t.Errorf("%d results are counted as lost", lost)
			}
		}
	})
}

func TestDo_RefusesRepeatsOfARequestWhoseResultIsLost(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	f.learnScripts()
	f.client.faults = []fault{none, unmet, unmet}
	f.wantDone(f.a, "first") // the caller gets it all the same
	f.wantError(f.a, ErrInProgress)
	f.wantError(f.b, ErrInProgress)
	f.wantExpiry()
	if lost := f.a.LostResults(); lost != 1 {
		t.Errorf("%d results are counted as lost", lost)
	}
}

func TestDo_LeavesTheClaimOfAnotherAlone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		f := newFixture(t, server)
		var other string
		_, _, err := f.a.Do(t.Context(), "k", []byte("x"), func() ([]byte, error) {
			fingerprint, _, _ := strings.Cut(f.stored(), " ")
			other = fingerprint + " another " // our own claim has expired, and another instance has the key
			err := f.server.Ask("SET", f.a.newClaim("k", nil).redisKey, other).Error()
			return []byte("late"), err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.stored(); got != other {
			t.Errorf("got %q, want %q", got, other)
		}
	})
}

func TestDo_RefusesKeysWhenTheQuotaIsSpent(t *testing.T) {
	f := newFixture(t, redistest.StartInProcess(t))
	f.a.quota.isFull(time.Now(), 2)
	f.a.quota.spend(time.Now(), maxBytes/2)
	f.wantDone(f.b, "another instance has a quota of its own")
	f.a.quota.spend(time.Now(), maxBytes/2) // more than is left, so no time that passes here makes room
	f.wantError(f.a, ErrTooManyKeys)
}

func TestQuota_IsAnEqualShareThatRefillsWithinKeepFor(t *testing.T) {
	begun := time.Now()
	for _, c := range []struct {
		instances, spent int
		after            time.Duration
		full             bool
	}{
		{1, maxBytes - 1, 0, false},
		{1, maxBytes, 0, true},
		{2, maxBytes / 2, 0, true},
		{2, maxBytes / 2, time.Second, false},
		{1, maxBytes, KeepFor, false},
		{200, maxBytes / 4, KeepFor / 2, false}, // of a result larger than the share, the share is counted
	} {
		q := newQuota()
		q.isFull(begun, c.instances)
		q.spend(begun, c.spent)
		if full := q.isFull(begun.Add(c.after), c.instances); full != c.full {
			t.Errorf("%+v: full %v", c, full)
		}
	}
}

func TestQuota_NeverHoldsMoreThanTwiceItsShareWithinKeepFor(t *testing.T) {
	q, now, stored := newQuota(), time.Now(), 0
	for end := now.Add(KeepFor); now.Before(end); now = now.Add(100 * time.Millisecond) {
		for !q.isFull(now, 1) {
			q.spend(now, 1<<20)
			stored += 1 << 20
		}
	}
	if stored > 2*maxBytes+1<<20 {
		t.Errorf("%d bytes within %v, want at most twice %d", stored, KeepFor, maxBytes)
	}
}
