package lua

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

func scriptNames(t *testing.T) []string {
	t.Helper()
	paths, err := fs.Glob(files, "*.lua")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var names []string
	for _, path := range paths {
		if name := strings.TrimSuffix(path, ".lua"); !slices.Contains(common, name) {
			names = append(names, name)
		}
	}
	return names
}

var (
	declared = regexp.MustCompile(`(KEYS|ARGV)\[(\d+)(…?)\]`)
	keyTypes = regexp.MustCompile(`^-- KEYS\[\d+\] +\w+ +(HASH|STREAM|ZSET|STRING)\b`)
)

func TestEveryHeaderListsExactlyWhatItsBodyTakes(t *testing.T) {
	for _, name := range scriptNames(t) {
		header, body, ok := strings.Cut(read(name), "\n\n")
		if !ok {
			t.Errorf("%s.lua has no empty line after its header", name)
			continue
		}
		want, rest := map[string]bool{}, 0
		for _, line := range strings.Split(header, "\n") {
			if !strings.HasPrefix(line, "--") {
				t.Errorf("%s.lua: header line %q is not a comment", name, line)
			}
			if !strings.HasPrefix(line, "-- KEYS[") && !strings.HasPrefix(line, "-- ARGV[") {
				continue
			}
			if strings.HasPrefix(line, "-- KEYS[") && !keyTypes.MatchString(line) {
				t.Errorf("%s.lua: no type in %q", name, line)
			}
			match := declared.FindStringSubmatch(line)
			if match[3] == "…" {
				rest, _ = strconv.Atoi(match[2])
			} else {
				want[match[1]+"["+match[2]+"]"] = true
			}
		}
		if !strings.Contains(header, "\n-- Returns ") {
			t.Errorf("%s.lua: the header does not say what it returns", name)
		}
		used := map[string]bool{}
		for _, match := range declared.FindAllStringSubmatch(body, -1) {
			used[match[1]+"["+match[2]+"]"] = true
		}
		if fmt.Sprint(want) != fmt.Sprint(used) {
			t.Errorf("%s.lua: the header lists %v, the body uses %v", name, want, used)
		}
		fixed := 0
		for key := range want {
			if strings.HasPrefix(key, "ARGV") {
				fixed++
			}
		}
		if takesMore := strings.Contains(body, "#ARGV") || strings.Contains(body, "unpack(ARGV"); takesMore != (rest > 0) || rest > 0 && rest != fixed+1 {
			t.Errorf("%s.lua: takes more than its fixed arguments: %v; the header says from %d on, after %d fixed ones", name, takesMore, rest, fixed)
		}
	}
}

func TestScriptsAreShortAndReadTheirArgumentsOnce(t *testing.T) {
	for _, name := range append(scriptNames(t), common...) {
		_, body, _ := strings.Cut(read(name), "\n\n")
		if lines := strings.Count(body, "\n"); lines > 60 {
			t.Errorf("%s.lua has %d lines below its header", name, lines)
		}
		if slices.Contains(common, name) {
			continue
		}
		for _, match := range declared.FindAllString(body, -1) {
			if strings.Count(body, match) > 1 {
				t.Errorf("%s.lua reads %s more than once; name it", name, match)
			}
		}
	}
}

func TestEveryScriptLoads(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		client := server.Client()
		for _, name := range scriptNames(t) {
			server.Do(client, "SCRIPT", "LOAD", source(name))
		}
	})
}

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

func (s *state) run(script *rueidis.Lua, keys []string, args ...string) []rueidis.RedisMessage {
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
	return s.status(s.run(Lease, []string{"leases"},
		append([]string{token, version, strconv.Itoa(lifetime), "15000", "PUBLISH", s.key("to:x"), "beat"}, condemned...)...))
}

func (s *state) mirror(token, version string, users ...string) Status {
	s.t.Helper()
	return s.mirrorKnown(0, token, version, users...)
}

// mirrorKnown mirrors users, given as user, sockets, …, of whom the first ones came a minute ago and were mirrored before; the others
// came or went just now.
func (s *state) mirrorKnown(known int, token, version string, users ...string) Status {
	s.t.Helper()
	args := []string{token, version, "10000", "15000", "10000", "60000", strconv.Itoa(known)}
	for i := 0; i < len(users); i += 2 {
		ago := "0"
		if i < 2*known && !strings.HasPrefix(users[i+1], "-") {
			ago = "60000"
		}
		args = append(args, users[i], users[i+1], ago)
	}
	return s.status(s.run(Mirror, []string{"owners", "leases", "log", "seen"}, args...))
}

// sweep makes a whole pass and returns how many entries it dropped something from.
func (s *state) sweep() (dropped int64) {
	s.t.Helper()
	for args := []string{"0"}; ; {
		reply := s.run(Sweep, []string{"owners", "leases", "log", "seen"}, append([]string{args[0], "10", "15000", "10000"}, args[1:]...)...)
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
	entries, err := s.server.Do(s.client, "XRANGE", s.key("log"), "-", "+").AsXRange()
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.FieldValues["user"]+" "+entry.FieldValues["state"])
	}
	if !slices.Equal(got, changes) {
		s.t.Errorf("log: %q, want %q", got, changes)
	}
}

func (s *state) want(got, want Status) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("status %d, want %d", got, want)
	}
}

func TestMirrorStatesCountsAndLogsOnlyComingAndGoing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "2", "bob", "1"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK)
		s.wantOwners("alice", "a.1:2", "b.1:1")
		s.want(s.mirror("a.1", "1", "alice", "0"), OK)  // dropped there, still on b
		s.want(s.mirror("b.1", "1", "alice", "0"), OK)  // in her grace
		s.want(s.mirror("b.1", "2", "alice", "1"), OK)  // back
		s.want(s.mirror("a.1", "2", "alice", "-1"), OK) // the grace on a is over
		s.want(s.mirror("b.1", "3", "alice", "-1"), OK) // left on purpose
		s.want(s.mirror("b.1", "4", "cathy", "-1"), OK) // never was here
		s.wantOwners("alice")
		s.wantOwners("bob", "a.1:1")
		s.wantOwners("cathy")
		s.wantLog("alice online", "bob online", "alice offline")
		if score, err := server.Do(s.client, "ZSCORE", s.key("seen"), "alice").AsFloat64(); err != nil || score == 0 {
			t.Errorf("alice was not recorded as seen: %v %v", score, err)
		}
	})
}

func TestLeavingOnPurposeEndsTheGracesElsewhereButNotSockets(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1", "bob", "1"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1", "bob", "1"), OK)
		s.want(s.mirror("a.1", "1", "alice", "0"), OK)
		s.want(s.mirror("b.1", "1", "alice", "-2", "bob", "-2"), OK)
		s.wantOwners("alice")
		s.wantOwners("bob", "a.1:1")
		s.wantLog("alice online", "bob online", "alice offline")
	})
}

func TestMirrorRefusesAnyoneWithoutTheLeaseAndItsVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK)          // somebody can renew
		s.want(s.mirror("a.1", "0", "alice", "1"), Stale) // no lease
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "1", "alice", "1"), Stale) // Redis was rolled back
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.mirror("a.1", "0", "alice", "5"), Stale) // a delayed duplicate
		s.age("a.1", 20000)
		s.want(s.mirror("a.1", "1", "alice", "2"), OK) // lapsed, within the grace: revived
		s.age("a.1", 30000)
		s.want(s.mirror("a.1", "2", "alice", "3"), Stale) // dead
		s.wantOwners("alice", "a.1:2")
		s.wantLog("alice online")
	})
}

func TestANewEpochTakesTheEntriesOverAndNobodyFlickers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1", "bob", "1"), OK)
		s.want(s.lease("a.2", "", 10000), OK)
		s.want(s.mirror("a.2", "0", "alice", "1"), OK) // bob left meanwhile
		s.wantOwners("alice", "a.2:1")
		s.want(s.lease("a.2", "1", 10000, "a.1"), OK) // condemns a.1
		s.want(s.lease("a.1", "1", 10000), Stale)
		s.want(s.mirror("a.1", "1", "bob", "1"), Stale)
		s.sweep()
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob")
		s.wantLog("alice online", "bob online", "bob offline")
	})
}

func TestWhoWasMirroredBeforeRedisLostItIsNoNews(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.2", "", 10000), OK) // a.1 went with all the rest
		s.want(s.mirrorKnown(4, "a.2", "0", "alice", "1", "bob", "0", "cathy", "-2", "dave", "1", "eve", "1"), OK)
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob", "a.2:0")
		s.wantLog("cathy offline", "eve online")
		// dave is still online on b, whose instance has not noticed the loss yet, when a sees him leave
		s.want(s.mirrorKnown(1, "a.2", "1", "dave", "-2"), OK)
		s.want(s.lease("b.2", "", 10000), OK)
		s.want(s.mirrorKnown(1, "b.2", "0", "dave", "1"), OK)
		s.wantLog("cathy offline", "eve online", "dave offline", "dave online")
	})
}

func TestSinceIsWhenTheUserCameAndSeenWhenTheLastSocketWent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		mirror := func(version, sockets, ago string) {
			t.Helper()
			s.want(s.status(s.run(Mirror, []string{"owners", "leases", "log", "seen"}, "a.1", version, "10000", "15000", "1000", "3600000", "0", "alice", sockets, ago)), OK)
		}
		now, _ := server.Do(s.client, "TIME").AsIntSlice()
		near := func(what string, ms, ago int64) {
			t.Helper()
			if want := now[0]*1000 - ago; ms < want-2000 || ms > want+60000 {
				t.Errorf("%s %d, want about %d", what, ms, want)
			}
		}
		mirror("0", "1", "400000") // Redis was away when she came
		entry, _ := server.Do(s.client, "HGET", s.key("owners"), "alice").ToString()
		since, _ := strconv.ParseInt(strings.Fields(entry)[0], 10, 64)
		near("since", since, 400000)
		mirror("1", "0", "200000")
		score, _ := server.Do(s.client, "ZSCORE", s.key("seen"), "alice").AsFloat64()
		near("seen", int64(score), 200000)
	})
}

func TestLeaseOpensOnceAndEndsIntoTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK)  // somebody can renew
		s.want(s.lease("a.1", "0", 10000), Stale) // nothing to renew
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("a.1", "", 10000), Stale) // is open already
		s.want(s.lease("a.1", "0", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.lease("a.1", "1", 0), OK) // ends
		if dropped := s.sweep(); dropped != 0 {
			t.Errorf("the sweep dropped %d entries within the grace", dropped)
		}
		s.age("a.1", 15000)
		s.want(s.lease("a.1", "1", 10000), Stale) // dead
		s.sweep()
		s.wantOwners("alice")
		s.wantLog("alice online", "alice offline")
	})
}

func TestSweepDropsTheDeadKeepsTheRestAndForgetsTheirLeases(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		var all []string
		for n := range 700 { // enough to be a real hash table, which takes many steps
			all = append(all, "user"+strconv.Itoa(n), "1")
		}
		s.want(s.mirror("a.1", "0", all...), OK) // a single call: Redis takes more than a mirror ever sends
		s.want(s.mirror("b.1", "0", "user7", "1"), OK)
		s.age("a.1", 30000)
		if dropped := s.sweep(); dropped < 700 {
			t.Errorf("swept %d entries, want 700", dropped)
		}
		s.wantOwners("user7", "b.1:1")
		if left, _ := server.Do(s.client, "HLEN", s.key("owners")).AsInt64(); left != 1 {
			t.Errorf("%d entries left, want 1", left)
		}
		if leases, _ := server.Do(s.client, "HKEYS", s.key("leases")).AsStrSlice(); !slices.Equal(leases, []string{"b.1"}) {
			t.Errorf("leases %v, want b.1 alone", leases)
		}
		if changes, _ := server.Do(s.client, "XLEN", s.key("log")).AsInt64(); changes != 700+699 {
			t.Errorf("%d changes logged, want 700 online and 699 offline", changes)
		}
	})
}

func TestSweepGivesATokenThatLostItsLeaseTheGrace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK) // somebody can renew
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		server.Do(s.client, "HDEL", s.key("leases"), "a.1")
		if dropped := s.sweep(); dropped != 0 {
			t.Error("swept at once")
		}
		s.age("a.1", 15000)
		s.sweep()
		s.wantOwners("alice")
	})
}

func TestAUserWhoComesBackUnderADeadEntryWasOfflineBetween(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.age("a.1", 30000)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK) // before any sweep
		s.sweep()
		s.wantOwners("alice", "b.1:1")
		s.wantLog("alice online", "alice offline", "alice online")
		// of bob, b says that he went; but a, whom nobody could tell from dead, may say that he is there
		s.want(s.lease("a.2", "", 10000), OK)
		s.want(s.mirror("a.2", "0", "bob", "1"), OK)
		s.age("a.2", 30000)
		s.want(s.mirror("b.1", "1", "bob", "-1"), OK)
		s.want(s.lease("a.3", "", 10000), OK)
		s.want(s.mirrorKnown(1, "a.3", "0", "bob", "1"), OK)
		s.wantLog("alice online", "alice offline", "alice online", "bob online", "bob offline", "bob online")
	})
}

func TestWhenNobodyCouldRenewEverybodyHasTheGraceToComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, back := range map[string]func(s *state){
			"with a renewal":  func(s *state) { s.want(s.lease("a.1", "1", 10000), OK) },
			"with a write":    func(s *state) { s.want(s.mirror("a.1", "1", "alice", "1"), OK) },
			"as another":      func(s *state) { s.want(s.lease("c.1", "", 10000), OK) },
			"after the sweep": func(s *state) { s.sweep(); s.want(s.lease("a.1", "1", 10000), OK) },
		} {
			s := newState(t, server)
			for _, token := range []string{"a.1", "b.1", "gone.1"} {
				s.want(s.lease(token, "", 10000), OK)
			}
			s.want(s.mirror("a.1", "0", "alice", "1"), OK)
			s.want(s.mirror("b.1", "0", "bob", "1"), OK)
			s.want(s.mirror("gone.1", "0", "cathy", "1"), OK)
			for _, token := range []string{"a.1", "b.1", "gone.1"} {
				s.age(token, 60000)
			}
			back(s)
			s.sweep()
			s.want(s.lease("b.1", "1", 10000), OK)
			s.wantOwners("bob", "b.1:1")
			s.wantLog("alice online", "bob online", "cathy online")
			if t.Failed() {
				t.Fatal(name)
			}
			s.pass("gone.1", 15000)
			s.sweep()
			s.wantOwners("cathy")
			s.want(s.lease("gone.1", "1", 10000), Stale)
		}
	})
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

func TestPushReachesOwnersUnderLiveLeasesOnly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		messages := make(chan rueidis.PubSubMessage, 10)
		listen(t, s, messages, s.key("to:a"), s.key("to:b"), s.key("to:c"))
		for _, token := range []string{"a.1", "b.1", "c.1"} {
			s.want(s.lease(token, "", 10000), OK)
		}
		s.want(s.mirror("a.1", "0", "alice", "2", "bob", "1", "cathy", "0"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK)
		s.want(s.mirror("c.1", "0", "alice", "1", "dave", "1"), OK)
		s.age("c.1", 12000) // lapsed
		users := []string{"alice", "bob", "cathy", "dave", "nobody"}
		envelopes := []string{"<1>", "<2>", "<3>", "<4>", "<5>"}
		args := append([]string{"PUBLISH", s.key("to:"), " b ", "15000", "5"}, append(users, envelopes...)...)
		reply := s.run(Push, []string{"owners", "leases"}, args...)
		var got []int64
		for _, message := range reply {
			n, _ := message.AsInt64()
			got = append(got, n)
		}
		// b is the sender, so only a took alice's
		const instance, socket = 4, 4 * 65536
		if want := []int64{2 + instance + 2*socket, 2 + instance + socket, 1, 1, 0}; !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		if message := <-messages; message.Channel != s.key("to:a") || message.Message != "<1><2>" {
			t.Errorf("published %q to %s, want <1><2> to a", message.Message, message.Channel)
		}
		if len(messages) > 0 {
			t.Errorf("published more: %v", <-messages)
		}
	})
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

func TestInstancesMustAgreeOnTheNumberOfShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		announce := func(instance, shards string) Status {
			return s.status(s.run(Announce, []string{"instances", "leases", "shards"}, instance, "{}", shards))
		}
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(announce("a", "1"), OK)
		s.want(announce("b", "2"), Stale)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(announce("b", "1"), OK)
		server.Do(s.client, "HDEL", s.key("leases"), "a.1")
		s.want(announce("b", "1"), OK)
		if instances, _ := server.Do(s.client, "HKEYS", s.key("instances")).AsStrSlice(); !slices.Equal(instances, []string{"b"}) {
			t.Errorf("instances %v, want b alone: a has no lease", instances)
		}
	})
}
