package presence

import (
	"fmt"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

// BenchmarkMirror_MarksAllUsersOfEveryShard is what a Cluster's loss of data costs the instance before
// anything is written: 64 shards, and a million users, who must all be mirrored again.
func BenchmarkMirror_MarksAllUsersOfEveryShard(b *testing.B) {
	m := newIdleMirror("a", Redis{Keys: NewKeys("x", 64)})
	for n := range 1_000_000 {
		socket, _ := newSocket(fmt.Sprintf("user-%d", n))
		m.sockets.Add(socket)
	}
	for b.Loop() {
		for _, s := range m.shards {
			s.markAllDirty()
			s.writes.take() // as a flush does: the next round marks users who are not dirty
		}
	}
}

// BenchmarkMirror_Writes256UsersACall is how many users a second one shard can tell a redis-server of, when
// all of them come: the most expensive case, since each is logged.
func BenchmarkMirror_Writes256UsersACall(b *testing.B) {
	const together = 256
	c := newCluster(b, redistest.Start(b), 1)
	own := incarnation{"7f3a9c1e", 1}
	if _, err := c.redis.lease(b.Context(), 0, own, "", time.Hour, nil); err != nil {
		b.Fatal(err)
	}
	users := 0
	batch := make([]change, together)
	for b.Loop() {
		for i := range batch {
			user := fmt.Sprintf("user-%d", users+i)
			batch[i] = change{user: user, count: Count{Sockets: 1}, at: time.Now()}
		}
		if err := c.redis.mirror(b.Context(), 0, own, int64(users/together), batch); err != nil {
			b.Fatal(err)
		}
		users += together
	}
	b.ReportMetric(float64(users)/b.Elapsed().Seconds(), "users/s")
}
