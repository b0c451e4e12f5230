package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// floodRounds are how many times others' pushes are measured while nobody floods and then while mallory does:
// so both meet the same machine.
const floodRounds = 3

// floods are what mallory, who has a valid token, does on the first instance. All answers go to her sockets
// on the second.
var floods = []struct {
	what     string
	flooders int
	every    time.Duration // between the frames of one; 0: as fast as it can
	sockets  int           // on the second instance
	read     bool          // these read
}{
	{"20 sockets, and 2 elsewhere that send frames as fast as they can", 2, 0, 20, true},
	{"3,000 sockets, and 1 elsewhere that sends 30 frames/s", 1, time.Second / 30, 3000, false},
}

// bystanders are users on the second instance who are pushed to. They are so many that some share with
// mallory whatever is shared.
const (
	bystanders    = 64
	bystanderRate = 100 // pushes a second to all of them
)

// measureFlood pushes to others through the first instance to the second, and waits until each is written,
// while one user floods.
func measureFlood(ctx context.Context, s *stage) (rows []row, err error) {
	for _, flood := range floods {
		found, err := onStage(ctx, s.house, func(ctx context.Context, s *stage) (found flooded, err error) {
			f := &flooding{stage: s, every: flood.every}
			if err := f.prepare(ctx, flood.flooders, flood.sockets, flood.read); err != nil {
				return found, err
			}
			return f.measureInTurn(ctx)
		})
		if err != nil {
			return rows, fmt.Errorf("%s: %w", flood.what, err)
		}
		const quiet = "quiet"
		rows = append(rows,
			row{what: fmt.Sprintf("**one user floods**: %s. A push to anybody else until it is written, median", flood.what),
				found: millis(quantile(found.flood, 0.5)), floor: millis(quantile(found.quiet, 0.5)), ofFloor: quiet},
			row{what: "99th percentile",
				found: millis(quantile(found.flood, 0.99)), floor: millis(quantile(found.quiet, 0.99)), ofFloor: quiet},
			row{what: "pushes to others: sent · not written · events of the flooder answered · times an instance was not ready",
				text: fmt.Sprintf("%s · %s · %s · %s", thousands(int64(len(found.quiet)+len(found.flood))),
					thousands(found.lost), thousands(found.answered), thousands(found.notReady))})
	}
	return rows, nil
}

// flooded is how long pushes to others took, sorted.
type flooded struct {
	quiet, flood   []time.Duration
	lost, notReady int64
	answered       int64
}

// flooding is two instances, mallory, and others.
type flooding struct {
	*stage
	every   time.Duration
	servers []*server
	caller  *caller // of the first instance
	next    int     // of the bystanders

	flooders int
	sent     atomic.Int64
}

func (f *flooding) prepare(ctx context.Context, flooders, sockets int, read bool) error {
	redis, err := f.startRedis(ctx)
	if err != nil {
		return err
	}
	f.servers, err = startServers(2, func() (*server, error) { return f.startInstance(ctx, redis) })
	if err != nil {
		return err
	}
	callers, err := f.dialCallers(1, f.servers)
	if err != nil {
		return err
	}
	f.caller, f.flooders = callers[0], flooders
	for range sockets {
		if _, err := f.dial("mallory", f.servers[1], read); err != nil {
			return err
		}
	}
	for n := range bystanders {
		if _, err := f.dial(bystander(n), f.servers[1], true); err != nil {
			return err
		}
	}
	return nil
}

func bystander(n int) string { return fmt.Sprintf("bystander-%d", n) }

// dial connects a user, until the end, and waits for the welcome.
func (f *flooding) dial(user string, to *server, read bool) (*websocket.Conn, error) {
	conn, err := dialAs(websocket.DefaultDialer, to.addr, user, f.secret)
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { conn.Close() })
	_, _, err = conn.ReadMessage()
	if read {
		go func() { _, _ = io.Copy(io.Discard, conn.NetConn()) }() // until it is closed
	}
	return conn, err
}

func (f *flooding) measureInTurn(ctx context.Context) (found flooded, err error) {
	for range floodRounds {
		quiet, lostQuiet, err := f.pushToOthers(ctx)
		if err != nil {
			return found, err
		}
		besides, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- f.flood(besides) }()
		flood, lost, err := f.pushToOthers(ctx)
		for _, one := range f.servers {
			if !isReady(ctx, one.addr) {
				found.notReady++
			}
		}
		stop()
		if err := errors.Join(err, <-ended, f.settle(ctx)); err != nil {
			return found, err
		}
		found.quiet, found.flood = append(found.quiet, quiet...), append(found.flood, flood...)
		found.lost += lostQuiet + lost
	}
	slices.Sort(found.quiet)
	slices.Sort(found.flood)
	found.answered = f.sent.Load()
	return found, nil
}

// pushToOthers pushes to the bystanders in turn, and counts pushes that were not written.
func (f *flooding) pushToOthers(ctx context.Context) (took []time.Duration, lost int64, err error) {
	_, err = paced(ctx, 1, bystanderRate, f.duration, func(int, time.Time) error {
		f.next++
		started := time.Now()
		path := "/push/" + bystander(f.next%bystanders) + "?wait=written"
		answer, err := f.caller.post(path, stamp(0, time.Time{}, f.payload), "")
		took = append(took, time.Since(started))
		if err == nil && !bytes.Contains(answer, []byte(`"written":1,`)) {
			lost++
		}
		return err
	})
	return took, lost, err
}

// flood has mallory send frames until the context ends. Who is sent away for that comes back.
func (f *flooding) flood(ctx context.Context) error {
	errs := make([]error, f.flooders)
	var sending sync.WaitGroup
	for i := range f.flooders {
		sending.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = f.sendEvents(ctx)
			}
		})
	}
	sending.Wait()
	return errors.Join(errs...)
}

// sendEvents sends frames through one socket until it is closed or the context ends.
func (f *flooding) sendEvents(ctx context.Context) error {
	conn, err := f.dial("mallory", f.servers[0], false)
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := context.AfterFunc(ctx, func() { conn.Close() }) // a server that does not read holds up a write
	defer ended()
	go func() {
		for {
			_, frame, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if bytes.HasPrefix(frame, []byte(`{"event":"events","data":1`)) {
				f.sent.Add(1)
			}
		}
	}()
	due := time.Now()
	for ctx.Err() == nil {
		if conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"events"}`)) != nil {
			return nil
		}
		due = due.Add(f.every)
		time.Sleep(time.Until(due))
	}
	return nil
}

// settle waits until nothing waits for sockets any more.
func (f *flooding) settle(ctx context.Context) error {
	for _, one := range f.servers {
		for {
			waiting, err := f.metric(ctx, one, "rollcall_received_queue")
			if err != nil {
				return err
			}
			if waiting == 0 {
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
