package fanout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// model is what the whole system should be: a plain list of sockets, and which users are in their grace
// where.
type model struct {
	t     *testing.T
	r     *rand.Rand
	nodes []*node
	open  []*inbox
	grace map[string]map[*node]bool
	sent  map[*inbox][]string
	steps int
}

// TestBus_MatchesAPlainMapInAnyPlayOfConnectsDropsPushesAndReads plays thousands of random steps. The seed is
// printed if it fails.
func TestBus_MatchesAPlainMapInAnyPlayOfConnectsDropsPushesAndReads(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		o := options(server, 3)
		m := &model{
			t: t, r: rand.New(rand.NewPCG(seed, 0)),
			grace: map[string]map[*node]bool{}, sent: map[*inbox][]string{},
		}
		for n := range 3 {
			m.nodes = append(m.nodes, startNode(t, fmt.Sprintf("n%d", n), o))
		}
		for m.steps = range 2500 {
			m.step()
		}
		m.checkFrames()
	})
}

func (m *model) step() {
	switch n := m.r.IntN(100); {
	case n < 25:
		m.connect()
	case n < 35 && len(m.open) > 0:
		m.disconnect(true)
	case n < 45 && len(m.open) > 0:
		m.disconnect(false)
	case n < 80:
		m.push()
	case n < 85:
		m.emit()
	case n < 95:
		m.read()
	default:
		m.list()
	}
}

func (m *model) user() string { return fmt.Sprintf("user%d", m.r.IntN(12)) }

func (m *model) node() *node { return m.nodes[m.r.IntN(len(m.nodes))] }

func (m *model) connect() {
	user, n := m.user(), m.node()
	if m.r.IntN(10) == 0 {
		user = "" // anonymous
	}
	m.open = append(m.open, n.join(user))
	delete(m.grace[user], n)
}

func (m *model) disconnect(onPurpose bool) {
	i := m.r.IntN(len(m.open))
	gone := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	gone.node.mirror.Leave(gone.Socket, onPurpose)
	gone.node.awaitWritten(gone.User)
	if gone.User == "" || m.socketsOf(gone.User, gone.node) > 0 {
		return
	}
	if onPurpose {
		delete(m.grace, gone.User) // wherever it ran
	} else {
		if m.grace[gone.User] == nil {
			m.grace[gone.User] = map[*node]bool{}
		}
		m.grace[gone.User][gone.node] = true
	}
}

// awaitWritten waits until what happened to a user is in Redis: a socket that joins after it is.
func (n *node) awaitWritten(user string) {
	if user != "" {
		// any user of the same shard will do, and a new one for each: it leaves no trace
		for k := 0; ; k++ {
			probe := fmt.Sprintf("probe%d", k)
			if keys := n.bus.redis.Keys; keys.ShardOf(probe) == keys.ShardOf(user) {
				i := n.join(probe)
				n.mirror.Leave(i.Socket, true)
				return
			}
		}
	}
}

func (m *model) socketsOf(user string, on *node) int {
	count := 0
	for _, i := range m.open {
		if i.User == user && (on == nil || i.node == on) {
			count++
		}
	}
	return count
}

func (m *model) state(user string) presence.State {
	switch {
	case m.socketsOf(user, nil) > 0:
		return presence.Online
	case len(m.grace[user]) > 0:
		return presence.Reconnecting
	}
	return presence.Offline
}

func (m *model) push() {
	p := Push{User: m.user(), Frame: fmt.Appendf(nil, "push %d", m.steps)}
	if len(m.open) > 0 && m.r.IntN(3) == 0 {
		p.Exclude = m.open[m.r.IntN(len(m.open))].ID // may be another user's, which changes nothing
	}
	took := map[*node]bool{}
	from := m.node()
	for _, i := range m.open {
		if i.User != p.User {
			continue
		}
		if i.ID != p.Exclude {
			m.sent[i] = append(m.sent[i], string(p.Frame))
		}
		if i.ID != p.Exclude || i.node != from {
			took[i.node] = true // another instance takes it, even if all it has is excluded
		}
	}
	got := from.bus.push(m.t.Context(), p)
	if want := (Outcome{State: m.state(p.User), Instances: len(took)}); got != want {
		m.t.Fatalf("step %d: push to %s: %+v, want %+v", m.steps, p.User, got, want)
	}
	m.arrive()
}

// arrive waits until everything sent has arrived, or a socket that opens now might get it too, and rightly
// so.
func (m *model) arrive() {
	for _, i := range m.open {
		i.await(len(m.sent[i]))
	}
}

func (m *model) emit() {
	to := presence.Audience(m.r.IntN(2))
	frame := fmt.Sprintf("emit %d", m.steps)
	for _, i := range m.open {
		if to == presence.Everybody || i.User != "" {
			m.sent[i] = append(m.sent[i], frame)
		}
	}
	got, err := m.node().bus.Emit(m.t.Context(), Emit{To: to, Frame: []byte(frame)})
	if want := (Outcome{Instances: len(m.nodes)}); got != want || err != nil {
		m.t.Fatalf("step %d: emit: %+v, %v, want %+v", m.steps, got, err, want)
	}
	m.arrive()
	for _, n := range m.nodes { // also one that has no sockets yet: those that join now must not get it
		if err := n.bus.Barrier(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *model) read() {
	users := []string{m.user(), m.user(), m.user()}
	answer := m.node().mirror.Directory().Lookup(m.t.Context(), users)
	for n, user := range users {
		u := answer.Users[n]
		if u.Name != user || u.State != m.state(user) || u.Sockets != m.socketsOf(user, nil) {
			m.t.Fatalf("step %d: read %+v, want %s %v with %d sockets",
				m.steps, u, user, m.state(user), m.socketsOf(user, nil))
		}
	}
}

func (m *model) list() {
	var want, got []string
	for n := range 12 {
		if user := fmt.Sprintf("user%d", n); m.state(user) != presence.Offline {
			want = append(want, user)
		}
	}
	directory := m.node().mirror.Directory()
	for next := ""; ; {
		answer, err := directory.Page(m.t.Context(), next, 1+m.r.IntN(5))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, u := range answer.Users {
			if !strings.HasPrefix(u.Name, "probe") { // it may be leaving still
				got = append(got, u.Name)
			}
		}
		if next = answer.Next; next == "" {
			break
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.t.Fatalf("step %d: listed %v, want %v", m.steps, got, want)
	}
}

// checkFrames wants every open socket to have got what was sent to it while it was open, each once. In any
// order: different instances sent it.
func (m *model) checkFrames() {
	for _, i := range m.open {
		want := m.sent[i]
		got := slices.Clone(i.take(len(want)))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			m.t.Errorf("a socket of %q got %d frames, other than the %d sent", i.User, len(got), len(want))
		}
		i.mu.Lock()
		if len(i.frames) > 0 {
			m.t.Errorf("and %d more", len(i.frames))
		}
		i.mu.Unlock()
	}
}
