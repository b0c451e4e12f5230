package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// crowd is many sockets, in as many processes as their number of open files demands.
type crowd struct {
	*stage
	number  int  // among all crowds of this run
	emits   bool // each socket gets every number, instead of those for its user
	members []*member
}

// member is one process with sockets.
type member struct {
	*process
	rpc *rpc.Client
}

// socketsEach is how many sockets one process of a crowd has at most, unless it may open fewer files.
const socketsEach = 5000

// gather starts the processes for so many sockets.
func (s *stage) gather(sockets int) (*crowd, error) {
	most := min(socketsEach, socketsFor(s.files))
	c := &crowd{stage: s, number: s.crowds}
	s.crowds++
	for len(c.members)*most < sockets {
		m, err := s.startMember()
		if err != nil {
			return nil, err
		}
		c.members = append(c.members, m)
	}
	return c, nil
}

// dial opens one socket for each of so many users, spread over servers, and tells how long each took until its welcome, sorted.
func (c *crowd) dial(ctx context.Context, users int, servers ...*server) ([]time.Duration, error) {
	var addrs []string
	for _, server := range servers {
		addrs = append(addrs, server.addr)
	}
	size := len(c.members)
	dialed := make([]Dialed, size)
	err := c.each(func(i int, m *member) error {
		first, end := i*users/size, (i+1)*users/size
		order := DialOrder{
			Addrs: addrs, First: first, Count: end - first, Users: users, Emits: c.emits, AtOnce: max(1, c.dialers/size),
			Source: c.source(i), Secret: c.secret,
		}
		return m.call(ctx, "Dial", order, &dialed[i])
	})
	var took []time.Duration
	for _, d := range dialed {
		took = append(took, d.Took...)
	}
	slices.Sort(took)
	return took, err
}

// source is the address that a member connects from. No other crowd has it, nor one of another run: each address has only some 28,000
// ports, and a port that was used can't be used again for a minute.
func (c *crowd) source(member int) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%250, c.number%250, 1+member)
}

func (s *stage) startMember() (*member, error) {
	command := exec.Command(s.self, "sockets")
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	child, err := s.start("a process with sockets", command, func(string) {})
	if err != nil {
		return nil, err
	}
	return &member{process: child, rpc: rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{stdout, stdin})}, nil
}

// call calls a method of Sockets in the member's process.
func (m *member) call(ctx context.Context, method string, args, reply any) error {
	call := m.rpc.Go("Sockets."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var refused rpc.ServerError
	if call.Error != nil && !errors.As(call.Error, &refused) {
		return fmt.Errorf("%s ended by itself: %w", m.name, call.Error)
	}
	return call.Error
}

// each does something with all members at the same time.
func (c *crowd) each(do func(i int, m *member) error) error {
	errs := make([]error, len(c.members))
	var doing sync.WaitGroup
	for i, m := range c.members {
		doing.Go(func() { errs[i] = do(i, m) })
	}
	doing.Wait()
	return errors.Join(errs...)
}

// restBetweenReads is long enough that few writes to sockets wake the clients, and so short that a socket holds a few frames.
const restBetweenReads = 20 * time.Millisecond

// readingRarely measures a load of which nobody wants to know the delays. A write through the loopback to a client that waits for it has
// to wake that client, at the server's cost. Clients elsewhere would not be woken by the server, so while the load lasts these wait for nothing.
func (c *crowd) readingRarely(ctx context.Context, load func() (cost, error)) (cost, error) {
	rest := func(rest time.Duration) error {
		return c.each(func(_ int, m *member) error { return m.call(ctx, "Rest", rest, &struct{}{}) })
	}
	if err := rest(restBetweenReads); err != nil {
		return cost{}, err
	}
	found, err := load()
	return found, errors.Join(err, rest(0))
}

// arrivals are those of all sockets.
func (c *crowd) arrivals(ctx context.Context) (Arrivals, error) {
	counts := make([]Arrivals, len(c.members))
	err := c.each(func(i int, m *member) error { return m.call(ctx, "Arrivals", struct{}{}, &counts[i]) })
	var total Arrivals
	for _, count := range counts {
		total = total.plus(count)
	}
	return total, err
}

// delays are those at all sockets since it was last asked, sorted.
func (c *crowd) delays(ctx context.Context) ([]time.Duration, error) {
	lists := make([][]time.Duration, len(c.members))
	err := c.each(func(i int, m *member) error { return m.call(ctx, "Delays", struct{}{}, &lists[i]) })
	all := slices.Concat(lists...)
	slices.Sort(all)
	return all, err
}
