package lua

import (
	"fmt"
	"strconv"
	"testing"

	"rollcall/lua/redistest"
)

// remember has so many users seen last, some ms ago and one ms apart, the last ones latest.
func (s *state) remember(users int, ago int64) {
	s.t.Helper()
	now, err := s.server.Do(s.client, "TIME").AsIntSlice()
	if err != nil {
		s.t.Fatal(err)
	}
	args := []string{"ZADD", s.key("seen")}
	for n := range users {
		args = append(args, strconv.FormatInt(now[0]*1000-ago+int64(n), 10), fmt.Sprintf("user%d", n))
	}
	s.server.Do(s.client, args...)
}

func (s *state) seen() (users int64) {
	s.t.Helper()
	users, err := s.server.Do(s.client, "ZCARD", s.key("seen")).AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	return users
}

// wantTrimmed wants users to have been forgotten, the longest unseen ones first, at most so many by one call.
func (s *state) wantTrimmed(least, most int64, call func()) {
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

func TestUsersBeyondTheCapAndUsersSeenTooLongAgoAreForgottenAFewThousandAtATime(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		for name, ago := range map[string]int64{"beyond the cap of 1,000": 30_000, "longer ago than a minute": 120_000} {
			for by, call := range map[string]func(*state, int){
				"who leaves": func(s *state, n int) {
					user, version := "leaver", 2*n
					s.want(s.mirror("a.1", strconv.Itoa(version), user, "1"), OK)
					s.want(s.mirror("a.1", strconv.Itoa(version+1), user, "left"), OK)
				},
				"a sweep": func(s *state, _ int) {
					s.run(Sweep, []string{"owners", "leases", "log", "seen"}, "0", "10", "15000", "1000", "60000", "1000")
				},
			} {
				t.Run(name+" by "+by, func(t *testing.T) {
					s := newState(t, server)
					s.want(s.lease("a.1", "", 3_600_000), OK)
					s.remember(9000, ago)
					n := 0
					s.wantTrimmed(1001, 2001, func() { call(s, n); n++ })
					latest, _ := server.Do(s.client, "ZSCORE", s.key("seen"), "user8999").ToString()
					if kept := latest != ""; kept != (ago == 30_000) {
						t.Errorf("the latest of them is remembered: %v", kept)
					}
				})
			}
		}
	})
}
