package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
)

// fleet is the clients of a measurement, each with one socket. They check what they get.
type fleet struct {
	clients int
	sharing bool // each client gets every push; else push n is for user n modulo clients

	received atomic.Int64
	sum      atomic.Int64 // of the numbers of what was received: it tells a lost push from a doubled one
	wrong    atomic.Int64 // pushes for somebody else
	lost     atomic.Int64 // connections that ended by themselves
	closing  atomic.Bool

	conns []*websocket.Conn // static after connect

	mu sync.Mutex
	// mu guards the following
	delays []time.Duration // of pushes that tell when they were due
}

var fleets atomic.Int64 // so far

// dialAtOnce is how many sockets connect at the same time.
const dialAtOnce = 64

// connect opens a socket for each of so many users, spread over servers, and returns how long each took until
// its welcome, sorted.
func (e *env) connect(f *fleet, servers []*server) ([]time.Duration, error) {
	// An address has only some 28,000 ports, and a used one is blocked for a minute.
	source := net.IPv4(127, byte(1+time.Now().Unix()%250), byte(fleets.Add(1)), 1)
	dialer := &websocket.Dialer{
		NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: source}}).DialContext,
		ReadBufferSize: 512, WriteBufferSize: 256, HandshakeTimeout: 20 * time.Second,
	}
	took := make([]time.Duration, f.clients)
	conns := make([]*websocket.Conn, f.clients)
	errs := make([]error, dialAtOnce)
	var next atomic.Int64
	var dialing sync.WaitGroup
	for i := range dialAtOnce {
		dialing.Go(func() {
			for n := int(next.Add(1)) - 1; n < f.clients && errs[i] == nil; n = int(next.Add(1)) - 1 {
				started := time.Now()
				conns[n], errs[i] = e.dial(dialer, servers[n%len(servers)], userName(n))
				took[n] = time.Since(started)
			}
		})
	}
	dialing.Wait()
	f.conns = slices.DeleteFunc(slices.Clone(conns), func(c *websocket.Conn) bool { return c == nil })
	e.onClose(f.hangUp)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for n, conn := range conns {
		go f.read(n, conn)
	}
	slices.Sort(took)
	return took, nil
}

// dial opens one user's socket and waits for its welcome.
func (e *env) dial(dialer *websocket.Dialer, to *server, user string) (*websocket.Conn, error) {
	claims := jwt.RegisteredClaims{Subject: user, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(e.secret))
	if err != nil {
		return nil, err
	}
	conn, _, err := dialer.Dial("ws://"+to.addr+"/ws", http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", user, err)
	}
	_, welcome, err := conn.ReadMessage()
	if err != nil || !bytes.Contains(welcome, []byte(`"reachable":true`)) {
		return conn, fmt.Errorf("connect %s: want a welcome, got %q: %w", user, welcome, err)
	}
	return conn, nil
}

// read takes what a client gets until its connection ends.
func (f *fleet) read(client int, conn *websocket.Conn) {
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			if !f.closing.Load() {
				f.lost.Add(1)
			}
			return
		}
		number, due, ok := readStamp(frame)
		if !ok || !f.sharing && number%int64(f.clients) != int64(client) {
			f.wrong.Add(1)
			continue
		}
		if !due.IsZero() {
			f.mu.Lock()
			f.delays = append(f.delays, time.Since(due))
			f.mu.Unlock()
		}
		f.sum.Add(number)
		f.received.Add(1)
	}
}

func (f *fleet) hangUp() {
	f.closing.Store(true)
	for _, conn := range f.conns {
		conn.Close()
	}
}

func (f *fleet) quantile(q float64) quantity {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.delays)
	return millis(quantile(f.delays, q))
}

// await waits until so many were received, and their numbers have this sum.
func (f *fleet) await(ctx context.Context, want, sum int64) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for f.received.Load() < want && ctx.Err() == nil && f.lost.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if f.received.Load() == want && f.sum.Load() == sum && f.wrong.Load() == 0 && f.lost.Load() == 0 {
		return nil
	}
	return fmt.Errorf("of %d pushes (sum %d), %d arrived (sum %d), %d at somebody else; %d sockets ended",
		want, sum, f.received.Load(), f.sum.Load(), f.wrong.Load(), f.lost.Load())
}

func userName(n int) string { return "user-" + strconv.Itoa(n) }

// A stamp is the data of a push: a JSON string with its number and when it was due (ns; 0: its delay is not
// measured), filled up to payload bytes.
func stamp(number int64, due time.Time) []byte {
	nanos := int64(0)
	if !due.IsZero() {
		nanos = due.UnixNano()
	}
	data := fmt.Appendf(make([]byte, 0, payload), `"%012d %019d `, number, nanos)
	for len(data) < payload-1 {
		data = append(data, 'x')
	}
	return append(data, '"')
}

func readStamp(frame []byte) (number int64, due time.Time, ok bool) {
	_, data, found := bytes.Cut(frame, []byte(`"data":"`))
	if !found || len(data) < 32 {
		return 0, due, false
	}
	number, errNumber := strconv.ParseInt(string(data[:12]), 10, 64)
	nanos, errNanos := strconv.ParseInt(string(data[13:32]), 10, 64)
	if nanos > 0 {
		due = time.Unix(0, nanos)
	}
	return number, due, errNumber == nil && errNanos == nil
}
