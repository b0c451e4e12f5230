package redistest

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

// Cluster is three masters that share the slots, each with a replica or without.
type Cluster struct {
	Masters  []*Server
	Replicas []*Server // the n-th is of the n-th master; none if there are none

	t     testing.TB
	buses map[*Server]string // ports on which nodes talk to each other
}

// nodeTimeout, in ms, is the silence after which a node is taken for dead. Shorter, and a node that a busy
// machine holds up is failed over.
const nodeTimeout = "2000"

const clusterSlots = 16384

// StartCluster starts a Cluster and waits until every node agrees that it is whole.
func StartCluster(t testing.TB, withReplicas bool) *Cluster {
	t.Helper()
	c := &Cluster{t: t, buses: map[*Server]string{}}
	for range 3 {
		c.Masters = append(c.Masters, c.startNode())
		if withReplicas {
			c.Replicas = append(c.Replicas, c.startNode())
		}
	}
	for n, master := range c.Masters {
		first, last := n*clusterSlots/3, (n+1)*clusterSlots/3-1
		master.run("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
	}
	c.introduce()
	for n, replica := range c.Replicas {
		id := c.Masters[n].nodeID()
		Await(t, "a replica to know its master", func() bool {
			return strings.Contains(replica.run("CLUSTER", "NODES"), id)
		})
		replica.run("CLUSTER", "REPLICATE", id)
	}
	for _, replica := range c.Replicas {
		Await(t, "a replica to be in step", replica.isInStep)
	}
	c.waitWhole(c.Nodes()...)
	return c
}

func (c *Cluster) startNode() *Server {
	c.t.Helper()
	var bus string
	node := start(&Server{t: c.t}, func(s *Server) []string {
		_, bus, _ = net.SplitHostPort(freeAddr(c.t))
		return s.plus("--cluster-enabled", "yes", "--cluster-node-timeout", nodeTimeout, "--cluster-port",
			bus, "--repl-diskless-sync-delay", "0")
	})
	c.buses[node] = bus
	return node
}

// introduce makes the nodes known to each other. Everyone meets everyone: gossip alone takes its time.
func (c *Cluster) introduce() {
	nodes := c.Nodes()
	for n, node := range nodes {
		node.run("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(n+1))
		for _, other := range nodes[:n] {
			node.run("CLUSTER", "MEET", "127.0.0.1", other.port(), c.buses[other])
		}
	}
	for _, node := range nodes {
		known := fmt.Sprintf("cluster_known_nodes:%d\r", len(nodes))
		Await(c.t, "a node to know all others", func() bool {
			return strings.Contains(node.run("CLUSTER", "INFO"), known)
		})
	}
}

// waitWhole waits until each of these nodes sees a master for every slot, and all see the same.
func (c *Cluster) waitWhole(nodes ...*Server) {
	c.t.Helper()
	for _, node := range nodes {
		Await(c.t, "a whole cluster", func() bool {
			return strings.Contains(node.run("CLUSTER", "INFO"), "cluster_state:ok") &&
				slices.Equal(node.owners(), nodes[0].owners())
		})
	}
}

// Nodes are all masters and replicas.
func (c *Cluster) Nodes() []*Server { return slices.Concat(c.Masters, c.Replicas) }

// URL names all nodes.
func (c *Cluster) URL() string { return (*Security)(nil).url(nil, c.Nodes()...) }

// MoveSlot moves the slot of a key, with all that is in it, to another master, as redis-cli --cluster reshard
// does.
func (c *Cluster) MoveSlot(key string) {
	c.t.Helper()
	slot, err := c.Masters[0].Ask("CLUSTER", "KEYSLOT", key).AsInt64()
	if err != nil {
		c.t.Fatal(err)
	}
	number, owner := strconv.FormatInt(slot, 10), c.ownerOf(slot)
	from, to := c.Masters[owner], c.Masters[(owner+1)%len(c.Masters)]
	to.run("CLUSTER", "SETSLOT", number, "IMPORTING", from.nodeID())
	from.run("CLUSTER", "SETSLOT", number, "MIGRATING", to.nodeID())
	for {
		keys, err := from.Ask("CLUSTER", "GETKEYSINSLOT", number, "10").AsStrSlice()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		from.run(append([]string{"MIGRATE", "127.0.0.1", to.port(), "", "0", "5000", "KEYS"}, keys...)...)
	}
	for _, node := range append([]*Server{to, from}, c.Masters...) { // who has it now must know first
		node.run("CLUSTER", "SETSLOT", number, "NODE", to.nodeID())
	}
}

// AwaitHeir waits until the replica of a master that was killed has taken over, and every node left knows.
func (c *Cluster) AwaitHeir(n int) {
	c.t.Helper()
	Await(c.t, "the replica to take over", c.Replicas[n].isMaster)
	c.waitWhole(slices.Concat(c.Masters[:n], c.Masters[n+1:], c.Replicas)...)
}

// ownerOf is the place of the master that serves a slot.
func (c *Cluster) ownerOf(slot int64) int {
	c.t.Helper()
	owner := c.Masters[0].owners()[slot]
	return slices.IndexFunc(c.Masters, func(master *Server) bool { return master.nodeID() == owner })
}

func (s *Server) nodeID() string { return s.run("CLUSTER", "MYID") }

// owners are the ids of the masters of all slots, as this node sees them.
func (s *Server) owners() []string {
	s.t.Helper()
	ranges, err := s.Ask("CLUSTER", "SLOTS").ToArray()
	if err != nil {
		s.t.Fatal(err)
	}
	owners := make([]string, clusterSlots)
	for _, r := range ranges {
		first, last, id, err := slotRange(r)
		if err != nil {
			s.t.Fatal(err)
		}
		for slot := first; slot <= last; slot++ {
			owners[slot] = id
		}
	}
	return owners
}

// slotRange reads one line of CLUSTER SLOTS: first, last, [host, port, id], replicas….
func slotRange(line rueidis.RedisMessage) (first, last int64, id string, err error) {
	words, err := line.ToArray()
	if err != nil {
		return 0, 0, "", err
	}
	if first, err = words[0].AsInt64(); err != nil {
		return 0, 0, "", err
	}
	if last, err = words[1].AsInt64(); err != nil {
		return 0, 0, "", err
	}
	master, err := words[2].ToArray()
	if err != nil {
		return 0, 0, "", err
	}
	id, err = master[2].ToString()
	return first, last, id, err
}
