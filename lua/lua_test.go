package lua

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

// fileNames returns the names of the scripts, and of the files that are put before scripts.
func fileNames(t *testing.T) (scripts, preludes []string) {
	t.Helper()
	paths, err := fs.Glob(files, "*.lua")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		if name := strings.TrimSuffix(path, ".lua"); strings.Contains(read(name), "\n-- Uses: ") {
			scripts = append(scripts, name)
		} else {
			preludes = append(preludes, name)
		}
	}
	return scripts, preludes
}

func scriptNames(t *testing.T) []string {
	t.Helper()
	scripts, _ := fileNames(t)
	return scripts
}

var (
	declared = regexp.MustCompile(`(KEYS|ARGV)\[(\d+)(…?)\]`)
	keyTypes = regexp.MustCompile(`^-- KEYS\[\d+\] +\w+ +(HASH|STREAM|ZSET|STRING)\b`)
)

func TestScripts_HaveHeadersThatListExactlyWhatTheirBodiesTake(t *testing.T) {
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

func TestScripts_AreShortAndReadTheirArgumentsOnce(t *testing.T) {
	scripts, preludes := fileNames(t)
	for _, name := range slices.Concat(scripts, preludes) {
		_, body, _ := strings.Cut(read(name), "\n\n")
		if lines := strings.Count(body, "\n"); lines > 60 {
			t.Errorf("%s.lua has %d lines below its header", name, lines)
		}
		for _, match := range declared.FindAllString(body, -1) {
			if strings.Count(body, match) > 1 {
				t.Errorf("%s.lua reads %s more than once; name it", name, match)
			}
		}
	}
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	word    = regexp.MustCompile(`[A-Za-z_]+`)
	defined = regexp.MustCompile(`(?m)^local (?:function ([a-z_]+)|([A-Z_, ]+) =)`)
)

// wordsOf returns the words in the code of a file.
func wordsOf(name string) []string {
	return word.FindAllString(comment.ReplaceAllString(read(name), ""), -1)
}

// definitionsOf returns the functions and constants that a prelude defines for others.
func definitionsOf(prelude string) (names []string) {
	for _, match := range defined.FindAllStringSubmatch(read(prelude), -1) {
		names = append(names, word.FindAllString(match[1]+match[2], -1)...)
	}
	return names
}

func TestScripts_NameExactlyThePreludesThatTheyUse(t *testing.T) {
	scripts, preludes := fileNames(t)
	definedIn := map[string]string{}
	for _, prelude := range preludes {
		for _, name := range definitionsOf(prelude) {
			definedIn[name] = prelude
		}
	}
	for _, script := range scripts {
		named, used := uses(script), map[string]bool{}
		for i, prelude := range append(named, script) {
			for _, word := range wordsOf(prelude) {
				in := definedIn[word]
				if in == "" || in == prelude {
					continue
				}
				used[in] = true
				if !slices.Contains(named[:min(i, len(named))], in) {
					t.Errorf("%s.lua: %s.lua, which has %s, does not stand before %s.lua", script, in, word, prelude)
				}
			}
		}
		for _, prelude := range named {
			if !used[prelude] {
				t.Errorf("%s.lua names %s.lua and uses nothing of it", script, prelude)
			}
		}
	}
}

func TestScripts_Load(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		client := server.Client()
		for _, name := range scriptNames(t) {
			server.Do(client, "SCRIPT", "LOAD", source(name))
		}
	})
}

func TestMirrorStatesCountsAndLogsOnlyComingAndGoing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "2", "bob", "1"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK)
		s.wantOwners("alice", "a.1:2", "b.1:1")
		s.want(s.mirror("a.1", "1", "alice", "grace"), OK) // dropped there, still on b
		s.want(s.mirror("b.1", "1", "alice", "grace"), OK) // in her grace
		s.want(s.mirror("b.1", "2", "alice", "1"), OK)     // back
		s.want(s.mirror("a.1", "2", "alice", "gone"), OK)  // the grace on a is over
		s.want(s.mirror("b.1", "3", "alice", "gone"), OK)  // left on purpose
		s.want(s.mirror("b.1", "4", "cathy", "gone"), OK)  // never was here
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
		s.want(s.mirror("a.1", "1", "alice", "grace"), OK)
		s.want(s.mirror("b.1", "1", "alice", "left", "bob", "left"), OK)
		s.wantOwners("alice")
		s.wantOwners("bob", "a.1:1")
		s.wantLog("alice online", "bob online", "alice offline")
	})
}

func TestWhoLeavesOnPurposeSoonAfterComingIsInAGraceHereAndNowhereElse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.lease("b.1", "", 10000), OK)
		s.want(s.mirror("a.1", "0", "alice", "1", "bob", "1"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK)
		s.want(s.mirror("a.1", "1", "alice", "grace"), OK)
		s.want(s.mirror("b.1", "1", "alice", "left-early", "bob", "left-early", "cathy", "left-early"), OK)
		s.wantOwners("alice", "b.1:0")
		s.wantOwners("bob", "a.1:1", "b.1:0")
		s.wantOwners("cathy") // who was offline
		s.want(s.mirror("b.1", "2", "alice", "gone", "bob", "gone"), OK)
		s.wantOwners("bob", "a.1:1")
		s.wantLog("alice online", "bob online", "alice offline")
	})
}

func TestMirrorRefusesAnyoneWithoutTheLeaseAndItsVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("live.1", "", 10000), OK)               // somebody can renew
		s.want(s.mirror("a.1", "0", "alice", "1"), StaleLease) // no lease
		s.want(s.lease("a.1", "", 10000), OK)
		s.want(s.mirror("a.1", "1", "alice", "1"), StaleLease) // Redis was rolled back
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.mirror("a.1", "0", "alice", "5"), StaleLease) // a delayed duplicate
		s.age("a.1", 20000)
		s.want(s.mirror("a.1", "1", "alice", "2"), OK) // lapsed, within the grace: revived
		s.age("a.1", 30000)
		s.want(s.mirror("a.1", "2", "alice", "3"), StaleLease) // dead
		s.wantOwners("alice", "a.1:2")
		s.wantLog("alice online")
	})
}

func TestWhoWasMirroredBeforeRedisLostItIsNoNews(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.2", "", 10000), OK) // a.1 went with all the rest
		s.want(s.mirrorKnown(4, "a.2", "0", "alice", "1", "bob", "grace", "cathy", "left", "dave", "1", "eve", "1"), OK)
		s.wantOwners("alice", "a.2:1")
		s.wantOwners("bob", "a.2:0")
		s.wantLog("cathy offline", "eve online")
		// dave is still online on b, whose instance has not noticed the loss yet, when a sees him leave
		s.want(s.mirrorKnown(1, "a.2", "1", "dave", "left"), OK)
		s.want(s.lease("b.2", "", 10000), OK)
		s.want(s.mirrorKnown(1, "b.2", "0", "dave", "1"), OK)
		s.wantLog("cathy offline", "eve online", "dave offline", "dave online")
		// in a grace only who was not offline
		s.want(s.mirrorKnown(2, "a.2", "2", "cathy", "grace-if-present", "frank", "grace-if-present", "gail", "grace-if-present"), OK)
		s.wantOwners("cathy")
		s.wantOwners("frank", "a.2:0")
		s.wantOwners("gail")
		s.wantLog("cathy offline", "eve online", "dave offline", "dave online")
	})
}

func TestWhoseGoingWasLoggedComesAgainHoweverLongAgoItWas(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		mirror := func(token, version, sockets, ago string) {
			t.Helper()
			s.want(s.status(s.run(Mirror, []string{"owners", "leases", "log", "seen", "clock"}, token, version, "10000", "15000", "1000", "3600000", "1000", "1", "alice", sockets, ago)), OK)
		}
		// alice dropped from b and came back on a, which hung; then Redis lost everything, and b alone told what it knew
		s.want(s.lease("b.2", "", 10000), OK)
		mirror("b.2", "0", "grace", "60000")
		s.wantLog()
		mirror("b.2", "1", "gone", "60000")
		s.wantLog("alice offline")
		s.want(s.lease("a.2", "", 10000), OK)
		mirror("a.2", "0", "1", "50000")
		s.wantLog("alice offline", "alice online")
		// what was seen of her before does not count when Redis loses her once more
		server.Do(s.client, "HDEL", s.key("owners"), "alice")
		mirror("a.2", "1", "1", "50000")
		s.wantLog("alice offline", "alice online")
	})
}

func TestSinceIsWhenTheUserCameAndSeenWhenTheLastSocketWent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		s.want(s.lease("a.1", "", 10000), OK)
		mirror := func(version, sockets, ago string) {
			t.Helper()
			s.want(s.status(s.run(Mirror, []string{"owners", "leases", "log", "seen", "clock"}, "a.1", version, "10000", "15000", "1000", "3600000", "1000", "0", "alice", sockets, ago)), OK)
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
		mirror("1", "grace", "200000")
		score, _ := server.Do(s.client, "ZSCORE", s.key("seen"), "alice").AsFloat64()
		near("seen", int64(score), 200000)
	})
}
