package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

// relay is a play in which instances push to users who move, while subscriptions are killed.
type relay struct {
	t       *testing.T
	r       *rand.Rand
	server  *redistest.Server
	keys    presence.Keys
	nodes   []*node
	homes   []*inbox // the sockets that move, by user; each user has another that stays
	inboxes []*inbox // all there ever were
	pushes  []*relayed
	free    chan struct{} // a place for each push that may be on its way
	waiting sync.WaitGroup
}

// relayed is a push and what its caller was told.
type relayed struct {
	frame   string // "<sender> <number>"
	wait    Wait
	outcome Outcome
}

const (
	relayPushes = 4000
	relayUsers  = 12
	relayAtOnce = 64
	relayWait   = time.Second // for an owner that lost its subscription with the push in it
)

// TestBus_KeepsPushesInOrderThroughLostSubscriptionsAndMoves wants every socket to get what each instance
// pushes in order and once, and callers to be told the truth of it. The seed is printed if it fails.
func TestBus_KeepsPushesInOrderThroughLostSubscriptionsAndMoves(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := &relay{
		t: t, r: rand.New(rand.NewPCG(seed, 0)), server: redistest.Start(t),
		free: make(chan struct{}, relayAtOnce),
	}
	o := options(p.server, 2)
	p.keys = presence.NewKeys(o.prefix, o.shards)
	o.lease = time.Second // an instance whose subscription is silent notices within less
	for n := range 3 {
		p.nodes = append(p.nodes, startNode(t, fmt.Sprintf("n%d", n), o))
	}
	for n := range relayUsers {
		p.homes = append(p.homes, nil)
		p.open(n, p.nodes[0])
		p.open(n, p.nodes[n%len(p.nodes)]) // the first stays
	}
	for len(p.pushes) < relayPushes {
		p.step()
	}
	p.waiting.Wait()
	p.wantOrder()
	p.wantTruth()
	for n := range p.homes {
		p.wantReached(n)
	}
}

func (p *relay) step() {
	p.nodes[0].silence()
	switch n := p.r.IntN(1000); {
	case n < 3:
		p.killSubscriptions()
	case n < 8:
		p.killOneSubscription()
	case n < 40:
		p.haunt(p.r.IntN(relayUsers))
	case n < 80:
		p.move(p.r.IntN(relayUsers))
	default:
		p.push(p.r.IntN(relayUsers))
	}
}

func (p *relay) open(user int, on *node) {
	p.homes[user] = on.join(userOf(user))
	p.inboxes = append(p.inboxes, p.homes[user])
}

// move opens a socket elsewhere and closes the old one, in either order.
func (p *relay) move(user int) {
	old, next := p.homes[user], p.nodes[p.r.IntN(len(p.nodes))]
	if p.r.IntN(2) == 0 {
		p.open(user, next)
	}
	p.push(user)
	old.node.mirror.Leave(old.Socket, false)
	if p.homes[user] == old {
		p.open(user, next)
	}
}

// haunt makes Redis show a user on an instance that has no socket of that user, as if a write of it had been
// lost: what is pushed next goes there in vain, besides where the user is.
func (p *relay) haunt(user int) {
	owners := p.keys.Owners(p.keys.ShardOf(userOf(user)))
	entry, _ := p.server.Ask("HGET", owners, userOf(user)).ToString()
	for _, n := range p.nodes[1:] {
		if !strings.Contains(entry, n.name+".") {
			p.server.Ask("HSET", owners, userOf(user), entry+" "+n.name+".1:1")
			break
		}
	}
	for range len(p.nodes) {
		p.push(user)
	}
}

func (p *relay) push(user int) {
	from := p.nodes[p.r.IntN(len(p.nodes))]
	push := &relayed{frame: fmt.Sprintf("%s %d", from.name, len(p.pushes)), wait: Wait(p.r.IntN(2))}
	p.pushes = append(p.pushes, push)
	p.free <- struct{}{}
	until := time.Now().Add(relayWait)
	ticket := from.bus.Begin([]Push{{User: userOf(user), Frame: []byte(push.frame), Wait: push.wait}}, until)
	p.waiting.Go(func() {
		ctx, cancel := context.WithDeadline(context.Background(), until)
		defer cancel()
		push.outcome = ticket.Wait(ctx)[0]
		<-p.free
	})
}

func (p *relay) killSubscriptions() {
	p.server.Ask("CLIENT", "KILL", "TYPE", "pubsub")
}

func (p *relay) killOneSubscription() {
	list, _ := p.server.Ask("CLIENT", "LIST", "TYPE", "pubsub").ToString()
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if id, _, listed := strings.Cut(lines[p.r.IntN(len(lines))], " "); listed {
		p.server.Ask("CLIENT", "KILL", "ID", strings.TrimPrefix(id, "id="))
	}
}

// silence makes an instance that hears well believe that it does not, and take a new connection for its
// subscriptions.
func (n *node) silence() {
	for shard := range n.bus.subscriptions.shards {
		n.bus.subscriptions.shards[shard].beats.Store(0)
	}
}

// wantOrder wants each socket to have got the pushes of each sender in the order in which they were taken,
// each once.
func (p *relay) wantOrder() {
	for _, i := range p.inboxes {
		last := map[string]int{}
		for _, frame := range i.now() {
			sender, number := "", 0
			if _, err := fmt.Sscan(frame, &sender, &number); err != nil {
				p.t.Fatal(err)
			}
			if before, any := last[sender]; any && number <= before {
				p.t.Errorf("a socket of %s got push %d of %s after %d", i.User, number, sender, before)
			}
			last[sender] = number
		}
	}
}

// wantTruth wants what was answered as written to have come to as many sockets, and what was answered as
// taken by nobody to none.
func (p *relay) wantTruth() {
	came, written := map[string]int{}, 0
	for _, i := range p.inboxes {
		for _, frame := range i.now() {
			came[frame]++
		}
	}
	for _, push := range p.pushes {
		if !push.isTrue(came[push.frame]) {
			p.t.Errorf("push %s came to %d sockets, and was answered %+v",
				push.frame, came[push.frame], push.outcome)
		}
		written += push.outcome.Sockets.Written
	}
	if written < relayPushes/8 { // half of them wait for reports
		p.t.Errorf("only %d of %d pushes were answered as written", written, relayPushes)
	}
}

// isTrue says whether what the caller was told agrees with the number of sockets that the push came to.
func (p *relayed) isTrue(came int) bool {
	got := p.outcome
	switch {
	case errors.Is(got.Err, context.DeadlineExceeded), errors.Is(got.Err, errStateLost):
		return came == 0 // the machine was so busy that it was given up, or that its instance's lease lapsed
	case got.Err != nil:
		return false
	case got.Instances == 0 && came > 0:
		return false
	case p.wait == Routed: // it may have been lost with a subscription
		return true
	case got.Sockets.Unanswered > 0:
		return came >= got.Sockets.Written
	default:
		return came == got.Sockets.Written && (came > 0 || got.Instances == 0)
	}
}

// wantReached wants every instance's pushes to find a user in the end.
func (p *relay) wantReached(user int) {
	p.t.Helper()
	for _, from := range p.nodes {
		last := Push{User: userOf(user), Frame: []byte("last"), Wait: Written}
		redistest.Await(p.t, from.name+" to find "+last.User, func() bool {
			return from.bus.push(p.t.Context(), last).Sockets.Written == 2
		})
	}
}
