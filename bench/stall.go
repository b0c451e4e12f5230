package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// stallRounds are how many times it is measured with a client that reads and then with one that does not. What counts is the middle one of the rounds: so
// both meet the same machine, and a moment in which others had it does not count.
const stallRounds = 7

// measureStall pushes to users while one client, which does not read, is pushed to until its socket is closed with 4290, again and again;
// and while it gets the same and reads it.
func measureStall(ctx context.Context, s *stage) ([]row, error) {
	p, err := s.preparePushing(ctx, setting{servers: usualInstances, sockets: s.others, routed: true})
	if err != nil {
		return nil, err
	}
	var without, with rounds
	for range stallRounds {
		if err := without.add(p.besideOne(ctx, true)); err != nil {
			return nil, err
		}
		if err := with.add(p.besideOne(ctx, false)); err != nil {
			return nil, err
		}
	}
	closed, err := p.tooSlow(ctx)
	if err != nil {
		return nil, err
	}
	arrived, err := finalArrivals(ctx, p.crowd.arrivals)
	if err != nil {
		return nil, err
	}
	const ifRead = "if it reads"
	return []row{
		{what: fmt.Sprintf("**a client that does not read**, and %s others on %d instances, who get %s pushes/s: from request to socket, median",
			thousands(int64(s.others)), usualInstances, thousands(int64(s.rate))), found: middle(with.medians), floor: middle(without.medians), ofFloor: ifRead},
		{what: "99th percentile", found: middle(with.late), floor: middle(without.late), ofFloor: ifRead},
		{what: "times that it was closed with 4290, and came back", found: quantity{float64(closed), ""}},
		arrived.row("all pushes to the others", p.sent.Load()),
	}, arrived.fault(p.sent.Load())
}

// rounds are what delays were in each.
type rounds struct{ medians, late []time.Duration }

func (r *rounds) add(delays []time.Duration, err error) error {
	r.medians = append(r.medians, quantile(delays, 0.5))
	r.late = append(r.late, quantile(delays, 0.99))
	return err
}

func middle(of []time.Duration) quantity {
	slices.Sort(of)
	return millis(quantile(of, 0.5))
}

// besideOne pushes at a steady rate while one more client is pushed to, and tells how long each push to the others was under way, sorted.
func (p *pushing) besideOne(ctx context.Context, reads bool) ([]time.Duration, error) {
	besides, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.pushToOne(besides, reads) }()
	_, err := p.steady(ctx, p.rate, p.duration/2)
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		return nil, err
	}
	return p.crowd.delays(ctx)
}

// What the one client gets: so much that, if it does not read, each of its sockets lasts for about a second.
const (
	oneUser  = "one"
	oneBytes = 32 << 10
	oneEvery = 5 * time.Millisecond
)

// pushToOne keeps one client connected and pushes to it, until the context ends.
func (p *pushing) pushToOne(ctx context.Context, reads bool) error {
	callers, err := p.dialCallers(1, p.servers)
	if err != nil {
		return err
	}
	data := stamp(0, time.Time{}, oneBytes)
	ticks := time.NewTicker(oneEvery)
	defer ticks.Stop()
	for online := false; ctx.Err() == nil; {
		if !online {
			conn, err := p.dialOne(reads)
			if err != nil {
				return err
			}
			defer conn.Close()
		}
		answer, err := callers[0].post("/push/"+oneUser, data, "")
		if err != nil {
			return err
		}
		online = bytes.Contains(answer, []byte(`"instances":1`))
		<-ticks.C
	}
	return nil
}

// dialOne connects that client. If it reads no more than its welcome, its receive window is soon closed.
func (p *pushing) dialOne(reads bool) (*websocket.Conn, error) {
	dialer := &websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err == nil && !reads {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
	conn, err := dialAs(dialer, p.servers[0].addr, oneUser, p.secret)
	if err != nil {
		return nil, err
	}
	_, _, err = conn.ReadMessage() // it can be pushed to when it is welcome
	if reads {
		go func() { _, _ = io.Copy(io.Discard, conn.NetConn()) }() // until it is closed
	}
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
