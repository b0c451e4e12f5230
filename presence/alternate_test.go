package presence

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

// churn is three instances to which a few users come, and from which they go, at random.
type churn struct {
	c         *cluster
	r         *rand.Rand
	instances []*instance
	open      []func(onPurpose bool) // each closes a socket
}

func (c *churn) step() {
	switch n := len(c.open); {
	case c.r.IntN(20) == 0:
		c.instances[c.r.IntN(len(c.instances))].waitMirrored() // or all would be written together
	case n < 3 || n < 20 && c.r.IntN(2) == 0:
		on := c.instances[c.r.IntN(len(c.instances))]
		socket, _ := newSocket(fmt.Sprint("user", c.r.IntN(8)))
		on.sockets.Add(socket)
		c.open = append(c.open, func(onPurpose bool) { on.Leave(socket, onPurpose) })
	default:
		c.close(c.r.IntN(n))
	}
}

func (c *churn) close(place int) {
	last := len(c.open) - 1
	c.open[place], c.open[last] = c.open[last], c.open[place]
	c.open[last](c.r.IntN(3) > 0)
	c.open = c.open[:last]
}

func TestLog_HasEachUserComeAndGoInTurn(t *testing.T) {
	for _, times := range []struct{ stay, grace time.Duration }{
		{0, 0},
		{0, 50 * time.Millisecond},
		{30 * time.Millisecond, 0},
		{30 * time.Millisecond, 50 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("least stay %v, grace %v", times.stay, times.grace), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			c := newCluster(t, redistest.Start(t), 1)
			c.redis.MinStay, c.redis.Grace = times.stay, times.grace
			users := &churn{c: c, r: rand.New(rand.NewPCG(seed, 0))}
			for _, name := range []string{"a", "b", "c"} {
				users.instances = append(users.instances, c.startInstance(name))
			}
			for range 2000 {
				users.step()
			}
			for len(users.open) > 0 {
				users.close(0)
			}
			for _, one := range users.instances {
				one.waitMirrored()
			}
			redistest.Await(t, "all to be gone", func() bool {
				left, _ := c.server.Do(c.client, "HLEN", c.redis.Keys.Owners(0)).AsInt64()
				return left == 0
			})
			there := map[string]bool{}
			for n, change := range c.server.Changes(c.client, c.redis.Keys.Log(0)) {
				user, state, _ := strings.Cut(change, " ")
				if came := state == "online"; came == there[user] {
					t.Fatalf("change %d: %s is %s once more", n, user, state)
				}
				there[user] = !there[user]
			}
			for user, still := range there {
				if still {
					t.Errorf("%s is still there in the log", user)
				}
			}
		})
	}
}
