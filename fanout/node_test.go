package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// node is an instance without HTTP and WebSockets.
type node struct {
	t       testing.TB
	name    string
	mirror  *presence.Mirror
	sockets *presence.Sockets
	bus     *Bus
}

type nodeOptions struct {
	server  *redistest.Server
	prefix  string
	shards  int
	timeout time.Duration
	lease   time.Duration
	client  rueidis.Client                 // nil: a plain one
	dial    func() (rueidis.Client, error) // for subscriptions; nil: a plain one
}

func startNode(t testing.TB, name string, o nodeOptions) *node {
	t.Helper()
	if o.client == nil {
		o.client = o.server.Client()
	}
	if o.dial == nil {
		o.dial = func() (rueidis.Client, error) { return rueidis.NewClient(o.server.Option()) }
	}
	redis := presence.Redis{
		Client: o.client, Keys: presence.NewKeys(o.prefix, o.shards),
		Lease: o.lease, Grace: 15 * time.Second, LogCap: 1000, SeenFor: time.Hour, SeenCap: 1000,
		Timeout: o.timeout,
	}
	log := slog.New(slog.DiscardHandler)
	n := &node{t: t, name: name}
	n.mirror, n.sockets = presence.NewMirror(presence.MirrorOptions{Instance: name, Redis: redis, Log: log})
	n.bus = NewBus(Options{
		Instance: name, Redis: redis, Sockets: n.sockets, Mirror: n.mirror, Log: log, Dial: o.dial,
	})
	n.run(n.bus.Listen)
	select {
	case <-n.bus.Ready():
	case <-time.After(redistest.Patience):
		t.Fatal("not subscribed")
	}
	redistest.Eventually(t, "its leases", func() (error, bool) { // a slow Redis may not answer in time
		err := n.mirror.Open(t.Context())
		return err, err == nil
	})
	n.run(n.mirror.Run)
	n.run(n.bus.Run)
	return n
}

// anotherBus is a bus of the same instance that does not run yet.
func (n *node) anotherBus() *Bus {
	return NewBus(Options{
		Instance: n.name, Redis: n.bus.redis, Sockets: n.sockets, Mirror: n.mirror, Log: n.bus.log,
	})
}

func (n *node) run(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { run(ctx); close(done) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

// startWithAlice starts two nodes. alice has a socket on the second.
func startWithAlice(t *testing.T, server *redistest.Server) (a, b *node, alice *inbox) {
	t.Helper()
	o := options(server, 1)
	a, b = startNode(t, "a", o), startNode(t, "b", o)
	return a, b, b.join("alice")
}

// inbox is a connection that keeps what it is sent.
type inbox struct {
	*presence.Socket
	node *node

	mu     sync.Mutex
	gate   chan struct{} // open when closed: nothing comes in before
	frames []string
	grown  chan struct{} // closed and replaced with each frame
}

func (i *inbox) Send(messages ...presence.Message) bool {
	i.pass()
	for _, message := range messages {
		i.keep(string(message.Frame))
		if message.Tracker != nil {
			message.Tracker.Report(presence.Written)
		}
	}
	return true
}

// pass waits until the gate is open.
func (i *inbox) pass() {
	i.mu.Lock()
	gate := i.gate
	i.mu.Unlock()
	<-gate
}

// shut closes the gate until the test ends, as no connection does: to send never blocks. open lets in what
// came meanwhile.
func (i *inbox) shut() (open func()) {
	gate := make(chan struct{})
	open = sync.OnceFunc(func() { close(gate) })
	i.node.t.Cleanup(open)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.gate = gate
	return open
}

func (i *inbox) keep(frame string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frames = append(i.frames, frame)
	close(i.grown)
	i.grown = make(chan struct{})
}

func (i *inbox) Close(int, string) {}

func (i *inbox) Reachable() {}

// join opens a socket and waits until every node finds it.
func (n *node) join(user string) *inbox {
	n.t.Helper()
	i := &inbox{node: n, gate: make(chan struct{}), grown: make(chan struct{})}
	close(i.gate)
	i.Socket = &presence.Socket{ID: uuid.New(), User: user, Conn: i}
	ctx, cancel := context.WithTimeout(n.t.Context(), redistest.Patience)
	defer cancel()
	if !n.mirror.Join(ctx, i.Socket) {
		n.t.Fatalf("%s is not reachable", user)
	}
	return i
}

// await waits until so many frames are there.
func (i *inbox) await(count int) {
	i.node.t.Helper()
	for {
		i.mu.Lock()
		came, grown := len(i.frames), i.grown
		i.mu.Unlock()
		if came >= count {
			return
		}
		select {
		case <-grown:
		case <-time.After(redistest.Patience):
			i.node.t.Fatalf("%d frames came, want %d", came, count)
		}
	}
}

// take waits for so many frames and removes them.
func (i *inbox) take(count int) []string {
	i.node.t.Helper()
	i.await(count)
	i.mu.Lock()
	defer i.mu.Unlock()
	frames := i.frames
	i.frames = slices.Clone(frames[count:])
	return frames[:count]
}

func (i *inbox) wantFrames(want ...string) {
	i.node.t.Helper()
	if got := i.take(len(want)); !slices.Equal(got, want) {
		i.node.t.Errorf("got %q, want %q", got, want)
	}
}

// stateOf is the state of a ticket's first push.
func stateOf(t *Ticket) pushState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pushes[0].state
}

// holdQueue begins a push that a paused Redis does not answer, so that what follows it waits in the queue.
func (n *node) holdQueue(user, frame string) *Ticket {
	n.t.Helper()
	ticket := n.begin(Push{User: user, Frame: []byte(frame)})
	redistest.Await(n.t, "the push to be under way", func() bool { return stateOf(ticket) == sent })
	return ticket
}

// writtenToOne is the outcome of a push that was written to one socket of another instance.
var writtenToOne = Outcome{State: presence.Online, Instances: 1, Sockets: presence.Counts{Written: 1}}

// begin begins pushes whose caller is patient.
func (n *node) begin(pushes ...Push) *Ticket {
	return n.bus.Begin(pushes, time.Now().Add(redistest.Patience))
}

// push pushes once, and waits.
func (b *Bus) push(ctx context.Context, push Push) Outcome {
	return b.pushMany(ctx, []Push{push})[0]
}

// pushMany begins pushes together, and waits for all.
func (b *Bus) pushMany(ctx context.Context, pushes []Push) []Outcome {
	return b.Begin(pushes, deadline(ctx)).Wait(ctx)
}

func (n *node) push(user, frame string) Outcome {
	return n.bus.push(n.t.Context(), Push{User: user, Frame: []byte(frame)})
}

func (n *node) wantPush(user, frame string, state presence.State, instances int) {
	n.t.Helper()
	if got := n.push(user, frame); got != (Outcome{State: state, Instances: instances}) {
		n.t.Errorf("push to %s: %+v, want %v on %d", user, got, state, instances)
	}
}

func options(server *redistest.Server, shards int) nodeOptions {
	return nodeOptions{
		server: server, prefix: redistest.Prefix(), shards: shards,
		timeout: redistest.Patience, lease: 10 * time.Second,
	}
}

func userOf(n int) string { return fmt.Sprintf("user%d", n) }

// now is what has come by now.
func (i *inbox) now() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.frames
}

// toMany are pushes of one frame to many users.
func toMany(users []string, frame string) []Push {
	pushes, shared := make([]Push, len(users)), &presence.Shared{}
	for i, user := range users {
		pushes[i] = Push{User: user, Frame: []byte(frame), Shared: shared}
	}
	return pushes
}
