package lua

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

// Each benchmark runs one script on a real redis-server, and reports the processor time of Redis for each
// user, in µs. That is what limits how many a shard can serve.

const benchUsers = 10_000

// newBenchShard has users with one socket each, the even ones on a, which subscribes, the odd ones on b.
func newBenchShard(b *testing.B) *shard {
	s := newShard(b, redistest.Start(b))
	s.subscribe(func(rueidis.PubSubMessage) {}, "to:a")
	for first, incarnation := range []string{"a.1", "b.1"} {
		s.want(s.lease(incarnation, "", 3_600_000), OK)
		var users []string
		for n := first; n < benchUsers; n += 2 {
			users = append(users, userName(n), "1")
		}
		const inOneCall = 2 * 500
		for version := 0; len(users) > 0; version++ {
			some := users[:min(len(users), inOneCall)]
			users = users[len(some):]
			s.write(incarnation, strconv.Itoa(version), some...)
		}
	}
	return s
}

func userName(n int) string { return fmt.Sprintf("user-%d", n%benchUsers) }

// measure runs a call again and again, which does something for so many users.
func (s *shard) measure(b *testing.B, users int, call func(n int)) {
	call(0) // Redis has the script now
	before := s.processorTime()
	n := 0
	for b.Loop() {
		n++
		call(n)
	}
	b.ReportMetric((s.processorTime()-before)*1e6/float64(n*users), "redis-µs/user")
}

// processorTime is how long Redis has computed, in seconds.
func (s *shard) processorTime() (seconds float64) {
	info, _ := s.server.Do(s.client, "INFO", "cpu").ToString()
	for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			part, _ := strconv.ParseFloat(value, 64)
			seconds += part
		}
	}
	return seconds
}

func BenchmarkScript_Push(b *testing.B) {
	frame := strings.Repeat("x", 128)
	for _, batch := range []int{1, 8, 32, 128, 256} {
		b.Run(strconv.Itoa(batch), func(b *testing.B) {
			s := newBenchShard(b)
			s.measure(b, batch, func(n int) {
				var users, envelopes []string
				for i := range batch {
					users = append(users, userName(n*batch+i))
					envelopes = append(envelopes, frame)
				}
				s.push("b.1", "", batch, append(users, envelopes...)...)
			})
		})
	}
}

func BenchmarkScript_Mirror(b *testing.B) {
	for _, batch := range []int{1, 32, 256, 512} {
		b.Run(strconv.Itoa(batch), func(b *testing.B) {
			s := newShard(b, redistest.Start(b))
			s.want(s.lease("a.1", "", 3_600_000), OK)
			s.measure(b, batch, func(n int) {
				var users []string
				for i := range batch { // who come in one round, and drop in the next
					user := n*batch + i
					what := []string{"1", "grace"}[user/benchUsers%2]
					users = append(users, userName(user), what)
				}
				s.write("a.1", strconv.Itoa(n), users...)
			})
		})
	}
}

func BenchmarkScript_Lookup(b *testing.B) {
	for _, batch := range []int{1, 100, 1000} {
		b.Run(strconv.Itoa(batch), func(b *testing.B) {
			s := newBenchShard(b)
			s.measure(b, batch, func(n int) {
				var users []string
				for i := range batch {
					users = append(users, userName(n*batch+i))
				}
				s.run(Lookup, []string{"owners", "leases", "seen"}, users...)
			})
		})
	}
}
