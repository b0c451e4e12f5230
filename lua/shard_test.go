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

// shard drives the scripts on the keys of one shard, with a lease of 10 s and a grace of 15 s.
type shard struct {
	t      testing.TB
	server *redistest.Server
	client rueidis.Client
	prefix string

	seenFor string // how long mirror.lua and sweep.lua remember offline users, ms
}

func newShard(t testing.TB, server *redistest.Server) *shard {
	return &shard{t: t, server: server, client: server.Client(), prefix: redistest.Prefix(), seenFor: "60000"}
}

func (s *shard) key(name string) string { return s.prefix + name }

func (s *shard) keys(names ...string) (keys []string) {
	for _, name := range names {
		keys = append(keys, s.key(name))
	}
	return keys
}

// do runs a command on one key.
func (s *shard) do(command, key string, args ...string) rueidis.RedisResult {
	s.t.Helper()
	return s.server.Do(s.client, append([]string{command, s.key(key)}, args...)...)
}

// executable is a script of this package or of a test.
type executable interface {
	Exec(ctx context.Context, client rueidis.Client, keys, args []string) rueidis.RedisResult
}

func (s *shard) run(script executable, keys []string, args ...string) []rueidis.RedisMessage {
	s.t.Helper()
	reply, err := script.Exec(context.Background(), s.client, s.keys(keys...), args).ToArray()
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

func (s *shard) status(reply []rueidis.RedisMessage) Status {
	s.t.Helper()
	code, err := reply[0].AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	return Status(code)
}

func (s *shard) lease(incarnation, version string, lifetime int, fenced ...string) Status {
	s.t.Helper()
	args := []string{incarnation, version, strconv.Itoa(lifetime), "15000", "PUBLISH", s.key("to:x"), "beat"}
	return s.status(s.run(Lease, []string{"leases", "clock"}, append(args, fenced...)...))
}

// open opens leases of 10 s.
func (s *shard) open(incarnations ...string) {
	s.t.Helper()
	for _, incarnation := range incarnations {
		s.want(s.lease(incarnation, "", 10000), OK)
	}
}

// renew renews a lease for 10 s, and fences incarnations.
func (s *shard) renew(incarnation, version string, fenced ...string) {
	s.t.Helper()
	s.want(s.lease(incarnation, version, 10000, fenced...), OK)
}

// mirror mirrors users, given as user, what, …, who all came or went just now.
func (s *shard) mirror(incarnation, version string, users ...string) Status {
	s.t.Helper()
	return s.mirrorAgain(0, incarnation, version, users...)
}

// write mirrors users, and wants that to be taken.
func (s *shard) write(incarnation, version string, users ...string) {
	s.t.Helper()
	s.want(s.mirror(incarnation, version, users...), OK)
}

// writeAgain mirrors users, and wants that to be taken. The first ones were mirrored before.
func (s *shard) writeAgain(before int, incarnation, version string, users ...string) {
	s.t.Helper()
	s.want(s.mirrorAgain(before, incarnation, version, users...), OK)
}

// mirrorAgain mirrors users, given as user, what, …. The first ones were mirrored before, and came a minute
// ago. The others came or went just now.
func (s *shard) mirrorAgain(before int, incarnation, version string, users ...string) Status {
	s.t.Helper()
	var withAgo []string
	for i := 0; i < len(users); i += 2 {
		what, ago := users[i+1], "0"
		if _, err := strconv.Atoi(what); i < 2*before && (err == nil || what == "grace") {
			ago = "60000"
		}
		withAgo = append(withAgo, users[i], what, ago)
	}
	return s.mirrorAgo(before, incarnation, version, withAgo...)
}

// mirrorAgo mirrors users, given as user, what, ago, …. The first ones were mirrored before.
func (s *shard) mirrorAgo(before int, incarnation, version string, users ...string) Status {
	s.t.Helper()
	args := []string{incarnation, version, "10000", "15000", "10000", s.seenFor, "1000", strconv.Itoa(before)}
	keys := []string{"owners", "leases", "log", "seen", "clock"}
	return s.status(s.run(Mirror, keys, append(args, users...)...))
}

// sweepStep takes one step and returns how many entries it dropped something from, and the arguments of the
// next step.
func (s *shard) sweepStep(cursor string, dead ...string) (dropped int64, next []string) {
	s.t.Helper()
	args := append([]string{cursor, "10", "15000", "10000", s.seenFor, "1000"}, dead...)
	reply := s.run(Sweep, []string{"owners", "leases", "log", "seen"}, args...)
	dropped, _ = reply[1].AsInt64()
	for _, message := range slices.Delete(reply, 1, 2) {
		text, _ := message.ToString()
		next = append(next, text)
	}
	return dropped, next
}

// sweep makes a whole pass and returns how many entries it dropped something from.
func (s *shard) sweep() (dropped int64) {
	s.t.Helper()
	for next := []string{"0"}; ; {
		var n int64
		n, next = s.sweepStep(next[0], next[1:]...)
		if dropped += n; next[0] == "0" {
			return dropped
		}
	}
}

func (s *shard) announce(instance, shards string) Status {
	s.t.Helper()
	return s.status(s.run(Announce, []string{"instances", "leases", "shards"}, instance, "{}", shards))
}

// push pushes envelopes, given as user, user, …, envelope, envelope, …, and returns the number for each.
func (s *shard) push(caller, numbers string, count int, args ...string) []int64 {
	s.t.Helper()
	fixed := []string{"PUBLISH", s.key("to:"), "15000", "<0>", strconv.Itoa(count), numbers, caller}
	return numbersIn(s.run(Push, []string{"owners", "leases"}, append(fixed, args...)...))
}

func numbersIn(reply []rueidis.RedisMessage) (numbers []int64) {
	for _, message := range reply {
		n, _ := message.AsInt64()
		numbers = append(numbers, n)
	}
	return numbers
}

func (s *shard) claim(claim string) Status {
	s.t.Helper()
	return s.status(s.run(Claim, []string{"once"}, claim, "60000"))
}

func (s *shard) storeResult(claim, result string) Status {
	s.t.Helper()
	return s.status(s.run(StoreResult, []string{"once"}, claim, result, "60000"))
}

// leaseOf is the lease of an incarnation as Redis has it.
func (s *shard) leaseOf(incarnation string) string {
	s.t.Helper()
	lease, _ := s.do("HGET", "leases", incarnation).ToString()
	return lease
}

// age moves the deadline of a lease, as if time had passed.
func (s *shard) age(incarnation string, ms int64) {
	s.t.Helper()
	deadline, rest, found := strings.Cut(s.leaseOf(incarnation), " ")
	at, err := strconv.ParseInt(deadline, 10, 64)
	if err != nil || !found {
		s.t.Fatalf("%s has no lease", incarnation)
	}
	s.do("HSET", "leases", incarnation, fmt.Sprintf("%d %s", at-ms, rest))
}

// ageExtension moves the end of an extended lease, as if time had passed.
func (s *shard) ageExtension(incarnation string, ms int64) {
	s.t.Helper()
	words := strings.Fields(s.leaseOf(incarnation))
	if len(words) != 3 {
		s.t.Fatalf("the lease of %s is %q, want an extended one", incarnation, words)
	}
	until, _ := strconv.ParseInt(words[2], 10, 64)
	s.do("HSET", "leases", incarnation, fmt.Sprintf("%s %s %d", words[0], words[1], until-ms))
}

// wantOwners wants a user to have these owners, in any order; none: no entry.
func (s *shard) wantOwners(user string, owners ...string) {
	s.t.Helper()
	entry, _ := s.do("HGET", "owners", user).ToString()
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

// wantFields wants a hash to have these fields, given in sorted order.
func (s *shard) wantFields(hash string, fields ...string) {
	s.t.Helper()
	got, _ := s.do("HKEYS", hash).AsStrSlice()
	if slices.Sort(got); !slices.Equal(got, fields) {
		s.t.Errorf("%s has %d fields: %q…, want %q", hash, len(got), got[:min(len(got), 5)], fields)
	}
}

// wantLog wants these changes to have been logged, each as "user state".
func (s *shard) wantLog(changes ...string) {
	s.t.Helper()
	if got := s.server.Changes(s.client, s.key("log")); !slices.Equal(got, changes) {
		s.t.Errorf("log: %q, want %q", got, changes)
	}
}

func (s *shard) want(got, want Status) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("status %d, want %d", got, want)
	}
}

// listen subscribes to channels, and returns when Redis has confirmed it.
func (s *shard) listen(channels ...string) (messages chan rueidis.PubSubMessage) {
	s.t.Helper()
	messages = make(chan rueidis.PubSubMessage, 10)
	s.subscribe(func(m rueidis.PubSubMessage) { messages <- m }, channels...)
	return messages
}

// subscribe hands what comes through channels to a function. It returns when Redis has confirmed it.
func (s *shard) subscribe(take func(rueidis.PubSubMessage), channels ...string) {
	s.t.Helper()
	confirmed := make(chan struct{}, len(channels))
	hook := func(rueidis.PubSubSubscription) { confirmed <- struct{}{} }
	ctx, cancel := context.WithCancel(rueidis.WithOnSubscriptionHook(context.Background(), hook))
	s.t.Cleanup(cancel)
	client := s.server.Client()
	command := client.B().Subscribe().Channel(s.keys(channels...)...).Build()
	go func() { _ = client.Receive(ctx, command, take) }()
	for range channels {
		<-confirmed
	}
}
