package lua

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// state drives the scripts of one shard, with a lease of 10 s and a grace of 15 s.
type state struct {
	t      *testing.T
	server *redistest.Server
	client rueidis.Client
	prefix string
}

func newState(t *testing.T, server *redistest.Server) *state {
	return &state{t, server, server.Client(), redistest.Prefix()}
}

func (s *state) key(name string) string { return s.prefix + name }

// executable is a script, of this package or of a test.
type executable interface {
	Exec(ctx context.Context, client rueidis.Client, keys, args []string) rueidis.RedisResult
}

func (s *state) run(script executable, keys []string, args ...string) []rueidis.RedisMessage {
	s.t.Helper()
	for i, key := range keys {
		keys[i] = s.key(key)
	}
	reply, err := script.Exec(context.Background(), s.client, keys, args).ToArray()
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

func (s *state) status(reply []rueidis.RedisMessage) Status {
	s.t.Helper()
	code, err := reply[0].AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	return Status(code)
}

func (s *state) lease(token, version string, lifetime int, condemned ...string) Status {
	s.t.Helper()
	return s.status(s.run(Lease, []string{"leases", "clock"},
		append([]string{token, version, strconv.Itoa(lifetime), "15000", "PUBLISH", s.key("to:x"), "beat"}, condemned...)...))
}

func (s *state) mirror(token, version string, users ...string) Status {
	s.t.Helper()
	return s.mirrorKnown(0, token, version, users...)
}

// mirrorKnown mirrors users, given as user, what, …. The first ones were mirrored before, and came a minute
// ago. The others came or went just now.
func (s *state) mirrorKnown(known int, token, version string, users ...string) Status {
	s.t.Helper()
	args := []string{token, version, "10000", "15000", "10000", "60000", "1000", strconv.Itoa(known)}
	for i := 0; i < len(users); i += 2 {
		what, ago := users[i+1], "0"
		if _, err := strconv.Atoi(what); i < 2*known && (err == nil || what == "grace") {
			ago = "60000"
		}
		args = append(args, users[i], what, ago)
	}
	return s.status(s.run(Mirror, []string{"owners", "leases", "log", "seen", "clock"}, args...))
}

// sweep makes a whole pass and returns how many entries it dropped something from.
func (s *state) sweep() (dropped int64) {
	s.t.Helper()
	for args := []string{"0"}; ; {
		reply := s.run(Sweep, []string{"owners", "leases", "log", "seen"}, append([]string{args[0], "10", "15000", "10000", "60000", "1000"}, args[1:]...)...)
		n, _ := reply[1].AsInt64()
		dropped += n
		args = args[:0]
		for i, message := range reply {
			if text, err := message.ToString(); err == nil && i != 1 {
				args = append(args, text)
			}
		}
		if args[0] == "0" {
			return dropped
		}
	}
}

// age moves a lease's deadline, as if time had passed.
func (s *state) age(token string, ms int64) {
	s.t.Helper()
	lease, err := s.server.Do(s.client, "HGET", s.key("leases"), token).ToString()
	if err != nil {
		s.t.Fatal(err)
	}
	deadline, version, _ := strings.Cut(lease, " ")
	at, _ := strconv.ParseInt(deadline, 10, 64)
	s.server.Do(s.client, "HSET", s.key("leases"), token, fmt.Sprintf("%d %s", at-ms, version))
}

// wantOwners wants these owners of a user, in any order, whatever since; none is no entry.
func (s *state) wantOwners(user string, owners ...string) {
	s.t.Helper()
	entry, _ := s.server.Do(s.client, "HGET", s.key("owners"), user).ToString()
	var got []string
	if words := strings.Fields(entry); len(words) > 0 {
		got = words[1:]
	}
	slices.Sort(got)
	slices.Sort(owners)
	if !slices.Equal(got, owners) {
		s.t.Errorf("owners of %s: %v, want %v", user, got, owners)
	}
}

// wantLog wants these changes to have been logged, each as "user state".
func (s *state) wantLog(changes ...string) {
	s.t.Helper()
	if got := s.server.Changes(s.client, s.key("log")); !slices.Equal(got, changes) {
		s.t.Errorf("log: %q, want %q", got, changes)
	}
}

func (s *state) want(got, want Status) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("status %d, want %d", got, want)
	}
}

// pass lets time pass for a pardoned lease.
func (s *state) pass(token string, ms int64) {
	s.t.Helper()
	lease, _ := s.server.Do(s.client, "HGET", s.key("leases"), token).ToString()
	words := strings.Fields(lease)
	if len(words) != 3 {
		s.t.Fatalf("the lease of %s is %q, want a pardoned one", token, lease)
	}
	until, _ := strconv.ParseInt(words[2], 10, 64)
	s.server.Do(s.client, "HSET", s.key("leases"), token, fmt.Sprintf("%s %s %d", words[0], words[1], until-ms))
}

// listen subscribes and returns when Redis has confirmed it.
func listen(t *testing.T, s *state, messages chan<- rueidis.PubSubMessage, channels ...string) {
	t.Helper()
	confirmed := make(chan struct{}, len(channels))
	ctx, cancel := context.WithCancel(rueidis.WithOnSubscriptionHook(context.Background(), func(rueidis.PubSubSubscription) { confirmed <- struct{}{} }))
	t.Cleanup(cancel)
	client := s.server.Client()
	go func() {
		_ = client.Receive(ctx, client.B().Subscribe().Channel(channels...).Build(), func(m rueidis.PubSubMessage) { messages <- m })
	}()
	for range channels {
		<-confirmed
	}
}
