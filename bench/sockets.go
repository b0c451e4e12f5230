package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
)

// roles are what this program is in processes that it starts itself.
var roles = map[string]func() error{
	"sockets": serveSockets,
	"floor":   serveFloor,
	"local":   serveLocal,
}

// Sockets are the WebSocket clients that one process holds. The bench speaks with it by RPC over its stdin and stdout.
type Sockets struct {
	// static after construction
	poll *poll

	tally tally
}

// serveSockets is such a process. It ends when the bench closes its stdin.
func serveSockets() error {
	poll, err := startPoll()
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Sockets{poll: poll}); err != nil {
		return err
	}
	server.ServeConn(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	return nil
}

// DialOrder says which sockets to open: one for each of Count users from First on, out of so many Users. User n connects to the
// address n modulo their number.
type DialOrder struct {
	Addrs               []string
	First, Count, Users int
	Emits               bool // see crowd
	AtOnce              int
	Source              string // the IP address to connect from
	Secret              string // of tokens
}

// Dialed is how long each socket took until its welcome.
type Dialed struct{ Took []time.Duration }

// Dial opens sockets, and goes on reading what they get. It fails with the first that does.
func (s *Sockets) Dial(order DialOrder, dialed *Dialed) error {
	dialed.Took = make([]time.Duration, order.Count)
	dialer := &websocket.Dialer{
		NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(order.Source)}}).DialContext,
		ReadBufferSize: 512, WriteBufferSize: 256, HandshakeTimeout: 20 * time.Second,
	}
	errs := make([]error, order.AtOnce)
	var next atomic.Int64
	var dialing sync.WaitGroup
	for i := range order.AtOnce {
		dialing.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= order.Count {
					return
				}
				started := time.Now()
				errs[i] = s.open(dialer, order, order.First+n)
				dialed.Took[n] = time.Since(started)
			}
		})
	}
	dialing.Wait()
	return errors.Join(errs...)
}

// open opens one socket and waits for its welcome.
func (s *Sockets) open(dialer *websocket.Dialer, order DialOrder, user int) error {
	name := userName(int64(user))
	conn, err := dialAs(dialer, order.Addrs[user%len(order.Addrs)], name, order.Secret)
	if err != nil {
		return err
	}
	_, welcome, err := conn.ReadMessage()
	if err != nil || !bytes.Contains(welcome, []byte(`"reachable":true`)) {
		conn.Close()
		return fmt.Errorf("connect %s: want a welcome that says reachable, got %q, %v", name, welcome, err)
	}
	box := &inbox{tally: &s.tally, user: int64(user), users: int64(order.Users)}
	if order.Emits {
		box.user, box.users = 0, 1
	}
	return s.poll.add(conn, box) // nothing follows the welcome: nobody pushes before all sockets are open
}

// dialAs connects as a user.
func dialAs(dialer *websocket.Dialer, addr, user, secret string) (*websocket.Conn, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject: user, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).SignedString([]byte(secret))
	if err != nil {
		return nil, err
	}
	address := url.URL{Scheme: "ws", Host: addr, Path: "/ws"}
	conn, response, err := dialer.Dial(address.String(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil && response != nil {
		err = fmt.Errorf("%w: %s", err, response.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", user, err)
	}
	return conn, nil
}

// Rest sets for how long the clients look at nothing after they have read all there was; 0: they read at once.
func (s *Sockets) Rest(rest time.Duration, _ *struct{}) error {
	s.poll.setRest(rest)
	return nil
}

// Arrivals tells what has arrived so far.
func (s *Sockets) Arrivals(_ struct{}, arrivals *Arrivals) error {
	*arrivals = s.tally.arrivals()
	return nil
}

// Delays tells of each push that had a time, since it was last asked, how long it was under way.
func (s *Sockets) Delays(_ struct{}, delays *[]time.Duration) error {
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	*delays, s.tally.delays = s.tally.delays, nil
	return nil
}

func userName(n int64) string { return fmt.Sprintf("user-%d", n) }
