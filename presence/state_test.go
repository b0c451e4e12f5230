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

func TestALeaseIsLiveThenLapsedThenDead(t *testing.T) {
	for _, c := range []struct {
		lease Lease
		want  LeaseStatus
	}{
		{Lease{Deadline: noon + 1}, Live},
		{Lease{Deadline: noon}, Expired},
		{Lease{Deadline: noon - testGrace.Milliseconds() + 1}, Expired},
		{Lease{Deadline: noon - testGrace.Milliseconds()}, Dead},
		{Lease{Deadline: noon + 1000, Fenced: true}, Dead},
		{Lease{Deadline: noon - 3_600_000, ExtendedUntil: noon + 1}, Expired},
		{Lease{Deadline: noon - 3_600_000, ExtendedUntil: noon}, Dead},
	} {
		if got := c.lease.Status(noon, testGrace); got != c.want {
			t.Errorf("%+v stands %v, want %v", c.lease, got, c.want)
		}
	}
}

func TestAUsersStateFollowsFromItsOwnersLeases(t *testing.T) {
	leases := Leases{
		"live.1":   {Deadline: noon + 5000},
		"also.1":   {Deadline: noon + 5000},
		"lapsed.1": {Deadline: noon - 5000},
		"dead.1":   {Deadline: noon - 60000},
	}
	for text, want := range map[string]User{
		"7 live.1:2":                     {State: Online, Sockets: 2, Instances: []string{"live"}, Since: 7, LastSeen: Moment(noon)},
		"7 live.1:2 also.1:1":            {State: Online, Sockets: 3, Instances: []string{"live", "also"}, Since: 7, LastSeen: Moment(noon)},
		"7 lapsed.1:1 live.1:1":          {State: Online, Sockets: 1, Instances: []string{"live"}, Since: 7, LastSeen: Moment(noon)},
		"7 live.1:0":                     {State: Reconnecting, Since: 7},
		"7 lapsed.1:4":                   {State: Reconnecting, Since: 7, LastSeen: Moment(noon - 5000)},
		"7 lost.1:4":                     {State: Reconnecting, Since: 7}, // no lease at all
		"7 dead.1:4":                     {State: Offline, LastSeen: Moment(noon - 60000)},
		"7 dead.1:4 live.1:0 lapsed.1:0": {State: Reconnecting, Since: 7, LastSeen: Moment(noon - 60000)},
	} {
		e, ok := parseEntry(text)
		if !ok {
			t.Fatalf("%q can't be read", text)
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

func TestTheFirstLiveTokenSweepsWhatIsDead(t *testing.T) {
	live, lapsed, dead := Lease{Deadline: noon + 1}, Lease{Deadline: noon}, Lease{Fenced: true}
	for _, c := range []struct {
		leases  Leases
		sweeper string
		work    bool
	}{
		{Leases{}, "", false},
		{Leases{"b": live, "c": live, "a": lapsed}, "b", false},
		{Leases{"b": live, "c": live, "a": lapsed, "z": dead}, "b", true},
		{Leases{"a": lapsed, "z": dead}, "", true},
	} {
		if sweeper, work := c.leases.Sweeper(noon, testGrace), c.leases.AnyDead(noon, testGrace); sweeper != c.sweeper || work != c.work {
			t.Errorf("of %v %q sweeps, %v; want %q, %v", c.leases, sweeper, work, c.sweeper, c.work)
		}
	}
}

func TestAMomentIsUTCWithMillisecondsAndNeverIsNull(t *testing.T) {
	if got := marshalled(t, Moment(1_700_000_000_120)); got != `"2023-11-14T22:13:20.120Z"` {
		t.Error(got)
	}
	if got := marshalled(t, Never); got != "null" {
		t.Error(got)
	}
}

func TestShardsAreSpreadEvenlyOverTheSlotsOfACluster(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 64, 1024} {
		for shard := range shards {
			slot := slotOf(hashTag(shard, shards))
			if place := (slot + clusterSlots - slotOf("0")) % clusterSlots; place*shards/clusterSlots != shard {
				t.Errorf("shard %d of %d is in slot %d", shard, shards, slot)
			}
		}
		if tag := hashTag(0, shards); tag != "0" {
			t.Errorf("of %d shards the first has the tag %s", shards, tag)
		}
	}
	if got := slotOf("123456789"); got != 0x31C3 { // the check value of CRC16 XMODEM, from the Cluster specification
		t.Errorf("the slot of 123456789 is %#x", got)
	}
}

func TestACursorIsReadBackAndNothingElseIsOne(t *testing.T) {
	for _, c := range []cursor{{shard: 3, step: 1 << 63, after: "a:b:🦊"}, {local: true, after: "x"}} {
		if got, err := parseCursor(c.String(), 4); err != nil || got != c {
			t.Errorf("%+v was read back as %+v, %v", c, got, err)
		}
	}
	for _, text := range []string{"x", "!!", cursor{shard: 4}.String(), "eDox", "cjotMTowOg"} {
		if got, err := parseCursor(text, 4); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func marshalled(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
