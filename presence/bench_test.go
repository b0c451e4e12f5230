package presence

import (
	"fmt"
	"log/slog"
	"testing"
)

// BenchmarkMarkingAllUsersOfEveryShard is what a Cluster's loss of state costs the instance before anything
// is written: 64 shards, and a million users, who are all to be mirrored again.
func BenchmarkMarkingAllUsersOfEveryShard(b *testing.B) {
	m, sockets := NewMirror(MirrorOptions{Instance: "a", Redis: Redis{Keys: NewKeys("x", 64)}, Log: slog.New(slog.DiscardHandler)})
	for n := range 1_000_000 {
		socket, _ := newSocket(fmt.Sprintf("user-%d", n))
		sockets.Add(socket)
	}
	for b.Loop() {
		for _, s := range m.shards {
			s.markAllDirty()
		}
	}
}
