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

// floods are what mallory, who has a valid token, does on the first instance. All answers go to her sockets
// on the second one.
var floods = []struct {
	what     string
	flooders int
	every    time.Duration // between the frames of one; 0: as fast as it can
	sockets  int           // on the second instance
	reading  bool          // these read
}{
	{"20 sockets, and 2 elsewhere that send frames as fast as they can", 2, 0, 20, true},
	{"3,000 sockets, and 1 elsewhere that sends 30 frames/s", 1, time.Second / 30, 3000, false},
}

// The others are on the second instance, and are pushed to through the first. They are so many that some
// share with mallory whatever is shared.
const (
	others     = 64
	othersRate = 100 // pushes a second to all of them
)

// measureFlood pushes to others and waits until each is written, while nobody floods and while one user does.
func measureFlood(ctx context.Context, e *env) (rows []row, err error) {
	compared := against("quiet")
	for i, flood := range floods {
		f, err := measureOneFlood(ctx, e, i)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", flood.what, err)
		}
		const until = "A push to others until it is written, median"
		const counts = "pushes to others: sent · not written · answers to mallory · times not ready"
		median := fmt.Sprintf("**one user floods**: %s. %s", flood.what, until)
		text := fmt.Sprintf("%d · %d · %d · %d",
			len(f.quiet)+len(f.flooded), f.notWritten, f.answered.Load(), f.notReady)
		rows = append(rows,
			compared(median, millis(quantile(f.flooded, 0.5)), millis(quantile(f.quiet, 0.5))),
			compared("99th percentile", millis(quantile(f.flooded, 0.99)), millis(quantile(f.quiet, 0.99))),
			row{what: counts, text: text})
	}
	return rows, nil
}

// flooding is two instances, mallory, and others.
type flooding struct {
	*env
	servers []*server
	backend *backend // of the first instance
	next    int      // of the others

	quiet, flooded       []time.Duration // how long pushes to others took
	notWritten, notReady int64
	answered             atomic.Int64 // events of mallory
}

func measureOneFlood(ctx context.Context, parent *env, index int) (*flooding, error) {
	f := &flooding{env: parent.child()}
	defer f.close()
	if err := f.prepare(ctx, index); err != nil {
		return nil, err
	}
	for range 3 { // in turn, so that both meet the same machine
		quiet, err := f.pushToOthers(ctx)
		if err != nil {
			return nil, err
		}
		flooding, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- f.flood(flooding, index) }()
		flooded, err := f.pushToOthers(ctx)
		for _, s := range f.servers {
			if !isReady(ctx, s) {
				f.notReady++
			}
		}
		stop()
		// What is queued for her is gone after a second.
		if err := errors.Join(err, <-ended, wait(ctx, time.Second)); err != nil {
			return nil, err
		}
		f.quiet, f.flooded = append(f.quiet, quiet...), append(f.flooded, flooded...)
	}
	slices.Sort(f.quiet)
	slices.Sort(f.flooded)
	return f, nil
}

func (f *flooding) prepare(ctx context.Context, index int) error {
	redis, err := f.startRedis(ctx)
	if err != nil {
		return err
	}
	if f.servers, err = f.startInstances(ctx, 2, redis); err != nil {
		return err
	}
	backends, err := f.dialBackends(1, f.servers)
	if err != nil {
		return err
	}
	f.backend = backends[0]
	for range floods[index].sockets {
		if err := f.open("mallory", floods[index].reading); err != nil {
			return err
		}
	}
	for n := range others {
		if err := f.open(userName(n), true); err != nil {
			return err
		}
	}
	return nil
}

// open opens a socket on the second instance.
func (f *flooding) open(user string, reading bool) error {
	conn, err := f.dial(websocket.DefaultDialer, f.servers[1], user)
	if err != nil {
		return err
	}
	f.onClose(func() { conn.Close() })
	if reading {
		go func() { _, _ = io.Copy(io.Discard, conn.NetConn()) }()
	}
	return nil
}

func (f *flooding) pushToOthers(ctx context.Context) (took []time.Duration, err error) {
	_, err = paced(ctx, 1, othersRate, f.duration, func(int, time.Time) error {
		f.next++
		started := time.Now()
		path := "/push/" + userName(f.next%others) + "?wait=written"
		answer, err := f.backend.post(path, stamp(0, time.Time{}), "")
		took = append(took, time.Since(started))
		if err == nil && !bytes.Contains(answer, []byte(`"written":1,`)) {
			f.notWritten++
		}
		return err
	})
	return took, err
}

// flood has mallory send frames until the context ends. When she is sent away for that, she comes back.
func (f *flooding) flood(ctx context.Context, index int) error {
	errs := make([]error, floods[index].flooders)
	var sending sync.WaitGroup
	for i := range errs {
		sending.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = f.sendEvents(ctx, floods[index].every)
			}
		})
	}
	sending.Wait()
	return errors.Join(errs...)
}

// sendEvents sends frames through one socket until it is closed or the context ends.
func (f *flooding) sendEvents(ctx context.Context, every time.Duration) error {
	conn, err := f.dial(websocket.DefaultDialer, f.servers[0], "mallory")
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // a server that does not read holds up a write
	go func() {
		for {
			_, frame, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if bytes.HasPrefix(frame, []byte(`{"event":"events","data":1`)) {
				f.answered.Add(1)
			}
		}
	}()
	for due := time.Now(); ctx.Err() == nil; {
		if conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"events"}`)) != nil {
			return nil
		}
		due = due.Add(every)
		time.Sleep(time.Until(due))
	}
	return nil
}
