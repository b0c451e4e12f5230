package fanout

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// toMany are pushes of one frame to many users.
func toMany(users []string, frame string) []Push {
	pushes, shared := make([]Push, len(users)), &presence.Shared{}
	for i, user := range users {
		pushes[i] = Push{User: user, Frame: []byte(frame), Shared: shared}
	}
	return pushes
}

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

func TestOneLargeFrameForManyUsersFindsRoomAndGoesThroughRedisOnceACall(t *testing.T) {
	server := redistest.Start(t)
	o := options(server, 1)
	nodes := []*node{startNode(t, "a", o), startNode(t, "b", o)}
	var users []string
	var inboxes []*inbox
	for n := range 1000 {
		users = append(users, userOf(n))
		inboxes = append(inboxes, nodes[n%2].join(users[n]))
	}
	frame := strings.Repeat("x", 64<<10) // times 1000 is more than a lane keeps
	before := readByRedis(t, server)
	server.Pause() // so that all are queued at the same time
	ticket := nodes[0].router.Begin(toMany(users, frame), time.Now().Add(patience))
	server.Resume()
	for i, outcome := range ticket.Wait(t.Context()) {
		if want := (Outcome{State: presence.Online, Instances: 1}); outcome != want {
			t.Fatalf("push %d: %+v", i, outcome)
		}
		inboxes[i].wantFrames(frame)
	}
	if read := readByRedis(t, server) - before; read > 20*len(frame) { // 1000 users are four calls, or some more
		t.Errorf("Redis read %d bytes, to send one of %d to %d users", read, len(frame), len(users))
	}
}

func TestFramesForOneAndForManyReachEachUserInOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 1)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		users := []string{"alice", "bob", "carol"}
		want := map[string][]string{}
		var pushes []Push
		for n := range 20 {
			for group := range 3 { // each as often as makes it worth sharing, but the last
				frame := fmt.Sprintf("%d for group %d", n, group)
				shared := toMany(users, frame)
				if group == 2 {
					shared = shared[:1]
				}
				for range sharedFrom {
					pushes = append(pushes, shared...)
				}
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
		for i, outcome := range a.router.PushMany(t.Context(), pushes) {
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

func TestAFrameThatDidNotComeIsMalformed(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	alice := a.join("alice")
	message := envelope{kind: kindFrame, frame: []byte("shared")}.append(nil)
	message = envelope{kind: kindPushShared, user: "alice", frame: []byte{0}}.append(message)
	for n, frame := range [][]byte{nil, {1}, {0, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		bad := envelope{kind: kindPushShared, user: "alice", frame: frame}.append(message)
		a.receiver.handle(t.Context(), rueidis.PubSubMessage{Channel: "x", Message: string(bad)})
		alice.wantFrames("shared")
		if malformed := a.receiver.Dropped.Malformed.Load(); malformed != int64(n+1) {
			t.Errorf("%d malformed messages were counted, want %d", malformed, n+1)
		}
	}
}
