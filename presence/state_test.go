package presence

import (
	"encoding/json"
	"testing"
	"time"
)

const (
	testGrace = 15 * time.Second
	noon      = int64(1_800_000_000_000) // a moment of Redis' clock, ms
)

func TestUser_HasTheStateThatFollowsFromTheLeasesOfItsOwners(t *testing.T) {
	leases := storedLeases{
		"live.1":    {deadline: noon + 5000},
		"also.1":    {deadline: noon + 5000},
		"expired.1": {deadline: noon - 5000},
		"dead.1":    {deadline: noon - 60000},
	}
	online := func(sockets int, instances ...string) User {
		return User{State: Online, Sockets: sockets, Instances: instances, Since: 7, LastSeen: Moment(noon)}
	}
	for text, want := range map[string]User{
		"7 live.1:2":             online(2, "live"),
		"7 live.1:2 also.1:1":    online(3, "live", "also"),
		"7 expired.1:1 live.1:1": online(1, "live"),
		"7 live.1:0":             {State: Reconnecting, Since: 7},
		"7 expired.1:4":          {State: Reconnecting, Since: 7, LastSeen: Moment(noon - 5000)},
		"7 lost.1:4":             {State: Reconnecting, Since: 7}, // no lease at all
		"7 dead.1:4":             {State: Offline, LastSeen: Moment(noon - 60000)},

		"7 dead.1:4 live.1:0 expired.1:0": {State: Reconnecting, Since: 7, LastSeen: Moment(noon - 60000)},
	} {
		e, ok := parseEntry(text)
		if !ok {
			t.Fatalf("%q is not readable", text)
		}
		got := e.user("alice", leases, noon, testGrace)
		want.Name = "alice"
		if want.Instances == nil {
			want.Instances = []string{}
		}
		if a, b := marshalled(t, got), marshalled(t, want); a != b {
			t.Errorf("%s means %s, want %s", text, a, b)
		}
	}
}

func TestMoment_IsUTCWithMillisecondsAndNeverIsNull(t *testing.T) {
	if got := marshalled(t, Moment(1_700_000_000_120)); got != `"2023-11-14T22:13:20.120Z"` {
		t.Error(got)
	}
	if got := marshalled(t, Never); got != "null" {
		t.Error(got)
	}
}

func marshalled(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
