package fanout

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// readByRedis is how many bytes Redis has read.
func readByRedis(t *testing.T, server *redistest.Server) int {
	t.Helper()
	client := server.Client()
	text, err := client.Do(t.Context(), client.B().Info().Section("stats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(text, "total_net_input_bytes:")
	line, _, _ := strings.Cut(after, "\r\n")
	bytes, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestBus_SendsALargeFrameForManyUsersOnceInABatch(t *testing.T) {
	server := redistest.Start(t)
	o := options(server, 1)
	nodes := []*node{startNode(t, "a", o), startNode(t, "b", o)}
	var users []string
	var inboxes []*inbox
	for n := range 1000 {
		users = append(users, userOf(n))
		inboxes = append(inboxes, nodes[n%2].join(users[n]))
	}
	frame := strings.Repeat("x", 64<<10) // times 1000 is more than a queue holds
	before := readByRedis(t, server)
	server.Pause() // so that all are queued at the same time
	ticket := nodes[0].bus.Begin(toMany(users, frame), time.Now().Add(redistest.Patience))
	server.Resume()
	for i, outcome := range ticket.Wait(t.Context()) {
		if want := (Outcome{State: presence.Online, Instances: 1}); outcome != want {
			t.Fatalf("push %d: %+v", i, outcome)
		}
		inboxes[i].wantFrames(frame)
	}
	// 1000 users are four batches, or a few more
	if read := readByRedis(t, server) - before; read > 20*len(frame) {
		t.Errorf("Redis read %d bytes, to send one of %d to %d users", read, len(frame), len(users))
	}
}

func TestBus_KeepsSharedAndOtherFramesInOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		users := []string{"alice", "bob", "carol"}
		want := map[string][]string{}
		var pushes []Push
		for n := range 20 {
			for group := range 3 { // the last is for one user alone
				frame := fmt.Sprintf("%d for group %d", n, group)
				shared := toMany(users, frame)
				if group == 2 {
					shared = shared[:1]
				}
				pushes = append(pushes, shared...)
				pushes = append(pushes, Push{User: "bob", Frame: []byte(frame + ", for bob alone")})
			}
		}
		for _, push := range pushes {
			want[push.User] = append(want[push.User], string(push.Frame))
		}
		here, there := map[string]*inbox{}, map[string]*inbox{}
		for _, user := range users {
			here[user], there[user] = a.join(user), b.join(user)
		}
		for i := range pushes {
			pushes[i].Exclude = uuid.New() // nobody, but it must get through
		}
		for i, outcome := range a.bus.pushMany(t.Context(), pushes) {
			if outcome != (Outcome{State: presence.Online, Instances: 2}) {
				t.Fatalf("push %d: %+v", i, outcome)
			}
		}
		for _, user := range users {
			here[user].wantFrames(want[user]...)
			there[user].wantFrames(want[user]...)
		}
	})
}

func TestBus_CallsASharedFrameThatDidNotComeMalformed(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	message := envelope{kind: kindPushShared, user: "alice"}.append(nil)
	a.bus.receive(t.Context(), rueidis.PubSubMessage{Channel: "x", Message: string(message)})
	if malformed := a.bus.Dropped.Malformed.Load(); malformed != 1 {
		t.Errorf("%d malformed messages were counted", malformed)
	}
	message = nil
	for _, frame := range []string{"first", "second"} {
		message = envelope{kind: kindFrame, frame: []byte(frame)}.append(message)
		message = envelope{kind: kindPushShared, user: "alice"}.append(message)
		message = envelope{kind: kindPush, user: "alice", frame: []byte("own")}.append(message)
		message = envelope{kind: kindPushShared, user: "alice"}.append(message)
	}
	a.bus.receive(t.Context(), rueidis.PubSubMessage{Channel: "x", Message: string(message)})
	alice.wantFrames("first", "own", "first", "second", "own", "second")
}

func TestBus_ReportsSharedFramesAsWritten(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		nodes := []*node{startNode(t, "a", o), startNode(t, "b", o)}
		var users []string
		for n := range 10 {
			users = append(users, userOf(n))
			nodes[n%2].join(users[n])
		}
		pushes := toMany(users, "x")
		for i := range pushes {
			pushes[i].Wait = Written
		}
		for i, outcome := range nodes[0].bus.pushMany(t.Context(), pushes) {
			if want := writtenToOne; outcome != want {
				t.Errorf("push %d: %+v, want %+v", i, outcome, want)
			}
		}
	})
}

// keeper is a connection that keeps the frames themselves, as one whose client does not read.
type keeper struct {
	inbox
	kept [][]byte
}

func (k *keeper) Send(messages ...presence.Message) bool {
	for _, message := range messages {
		k.kept = append(k.kept, message.Frame)
	}
	return true
}

func TestBus_ASharedFrameThatIsKeptDoesNotKeepItsMessage(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := &keeper{}
	a.sockets.Add(&presence.Socket{ID: uuid.New(), User: "alice", Conn: alice})
	const messages, large = 32, 1 << 20
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	for range messages {
		message := envelope{kind: kindFrame, frame: []byte("small")}.append(nil)
		message = envelope{kind: kindPushShared, user: "alice"}.append(message)
		message = envelope{kind: kindPush, user: "bob", frame: make([]byte, large)}.append(message)
		a.bus.receive(t.Context(), rueidis.PubSubMessage{Channel: "x", Message: string(message)})
	}
	redistest.Await(t, "all to be handed over", func() bool { return a.bus.Queued() == 0 })
	if grown := int64(heap()) - int64(before); len(alice.kept) != messages || grown > messages*large/2 {
		t.Errorf("%d frames were kept, with %d bytes", len(alice.kept), grown)
	}
	runtime.KeepAlive(alice)
}
