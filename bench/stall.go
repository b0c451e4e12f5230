package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// stallRounds are how many times it is measured without that client and then with it, so that both are while the machine is as busy.
const stallRounds = 2

// measureStall pushes to users while one client, which does not read, is pushed to until its socket is closed with 4290, again and again.
func measureStall(ctx context.Context, s *stage) ([]row, error) {
	p, err := s.preparePushing(ctx, setting{servers: usualInstances, sockets: s.others, routed: true})
	if err != nil {
		return nil, err
	}
	if _, err := p.steadyDelays(ctx, s.duration/5); err != nil { // to warm up
		return nil, err
	}
	var without, with []time.Duration
	for range stallRounds {
		calm, err := p.steadyDelays(ctx, s.duration)
		if err != nil {
			return nil, err
		}
		stalled, err := p.whileStalled(ctx)
		if err != nil {
			return nil, err
		}
		without, with = append(without, calm...), append(with, stalled...)
	}
	slices.Sort(without)
	slices.Sort(with)
	closed, err := p.tooSlow(ctx)
	if err != nil {
		return nil, err
	}
	arrived, err := finalArrivals(ctx, p.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	const alone = "without it"
	delay := func(q float64) (found, floor quantity) {
		return millis(quantile(with, q)), millis(quantile(without, q))
	}
	median, medianAlone := delay(0.5)
	late, lateAlone := delay(0.99)
	return []row{
		{what: fmt.Sprintf("**a client that does not read**, and %s others on %d instances, who get %s pushes/s: from request to socket, median",
			thousands(int64(s.others)), usualInstances, thousands(int64(s.rate))), found: median, floor: medianAlone, ofFloor: alone},
		{what: "99th percentile", found: late, floor: lateAlone, ofFloor: alone},
		{what: "times that it was closed with 4290, and came back", found: quantity{float64(closed), ""}},
		arrived.row("all pushes to the others", p.sent.Load()),
	}, arrived.fault(p.sent.Load())
}

// whileStalled is steadyDelays while there is a client that does not read.
func (p *pushing) whileStalled(ctx context.Context) ([]time.Duration, error) {
	stalling, stop := context.WithCancel(ctx)
	stalled := make(chan error, 1)
	go func() { stalled <- p.stall(stalling) }()
	delays, err := p.steadyDelays(ctx, p.duration)
	stop()
	return delays, errors.Join(err, <-stalled)
}

// steadyDelays pushes at a steady rate and tells how long each push was under way.
func (p *pushing) steadyDelays(ctx context.Context, duration time.Duration) ([]time.Duration, error) {
	if _, err := p.steady(ctx, p.rate, duration); err != nil {
		return nil, err
	}
	return p.crowd.delays(ctx)
}

// What the client that does not read gets: so much that each of its sockets lasts for a second or two.
const (
	stalledUser  = "stalled"
	stalledBytes = 16 << 10
	stalledEvery = 5 * time.Millisecond
)

// stall keeps a client connected that does not read, and pushes to it, until the context ends.
func (p *pushing) stall(ctx context.Context) error {
	callers, err := p.dialCallers(1, p.servers)
	if err != nil {
		return err
	}
	data := stamp(0, time.Time{}, stalledBytes)
	ticks := time.NewTicker(stalledEvery)
	defer ticks.Stop()
	for online := false; ctx.Err() == nil; {
		if !online {
			conn, err := p.dialStalled()
			if err != nil {
				return err
			}
			defer conn.Close()
		}
		answer, err := callers[0].post("/push/"+stalledUser, data, "")
		if err != nil {
			return err
		}
		online = bytes.Contains(answer, []byte(`"instances":1`))
		<-ticks.C
	}
	return nil
}

// dialStalled connects the client that reads nothing but its welcome. Its receive window is soon closed.
func (p *pushing) dialStalled() (*websocket.Conn, error) {
	dialer := &websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
	conn, err := dialAs(dialer, p.servers[0].addr, stalledUser, p.secret)
	if err != nil {
		return nil, err
	}
	_, _, err = conn.ReadMessage() // the user can be pushed to when it is welcome
	return conn, err
}

// tooSlow counts sockets that were closed with 4290, on all instances.
func (p *pushing) tooSlow(ctx context.Context) (closed int, err error) {
	for _, one := range p.servers {
		n, err := p.metric(ctx, one, `rollcall_drops_total{reason="socket_too_slow"}`)
		if err != nil {
			return 0, err
		}
		closed += int(n)
	}
	return closed, nil
}

// metric reads one value that an instance shows.
func (s *stage) metric(ctx context.Context, of *server, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+of.addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+s.apiKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%s shows no %s", of.name, name)
}
