package lua

import (
	"fmt"
	"strconv"
	"testing"

	"rollcall/lua/redistest"
)

// remember records that so many users were last seen some ms ago, one ms apart, the last ones latest.
func (s *shard) remember(users int, ago int64) {
	s.t.Helper()
	now, err := s.server.Do(s.client, "TIME").AsIntSlice()
	if err != nil {
		s.t.Fatal(err)
	}
	var scores []string
	for n := range users {
		scores = append(scores, strconv.FormatInt(now[0]*1000-ago+int64(n), 10), fmt.Sprintf("user%d", n))
	}
	s.do("ZADD", "seen", scores...)
}

func (s *shard) seen() (users int64) {
	s.t.Helper()
	users, err := s.do("ZCARD", "seen").AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	return users
}

// wantTrimmed wants calls to forget users until few enough are left, and no call to forget more than most.
func (s *shard) wantTrimmed(least, most int64, call func()) {
	s.t.Helper()
	for {
		before := s.seen()
		call()
		trimmed := before - s.seen()
		if trimmed > most {
			s.t.Errorf("one call trimmed %d users, want at most %d", trimmed, most)
		}
		if trimmed <= 0 {
			break
		}
	}
	if left := s.seen(); left > least {
		s.t.Errorf("%d users are remembered, want %d at most", left, least)
	}
}

func TestSeen_ForgetsUsersBeyondTheCapAndOfLongAgoAFewThousandAtATime(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		agos := map[string]int64{"beyond the cap of 1,000": 30_000, "longer ago than a minute": 120_000}
		for name, ago := range agos {
			for by, call := range map[string]func(*shard, int){
				"who leaves": func(s *shard, n int) {
					user, version := "leaver", 2*n
					s.write("a.1", strconv.Itoa(version), user, "1")
					s.write("a.1", strconv.Itoa(version+1), user, "left")
				},
				"a sweep": func(s *shard, _ int) { s.sweepStep("0") },
			} {
				t.Run(name+" by "+by, func(t *testing.T) {
					s := newShard(t, server)
					s.want(s.lease("a.1", "", 3_600_000), OK)
					s.remember(9000, ago)
					n := 0
					s.wantTrimmed(1001, 2001, func() { call(s, n); n++ })
					latest, _ := s.do("ZSCORE", "seen", "user8999").ToString()
					if kept := latest != ""; kept != (ago == 30_000) {
						t.Errorf("the latest of them is remembered: %v", kept)
					}
				})
			}
		}
	})
}
