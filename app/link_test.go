package main

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// link is a way to a server, such as Redis, that can be cut, silenced, delayed and narrowed.
type link struct {
	// static after startLink
	addr, upstream string
	upwards        atomic.Pointer[hazard] // to Redis; never nil
	downwards      atomic.Pointer[hazard]
	running        sync.WaitGroup

	mu sync.Mutex
	// mu guards the following
	listener net.Listener // nil: the link is cut
	wires    map[*wire]bool
}

// hazard is what happens on a link in one direction. The zero hazard is none.
type hazard struct {
	silent        bool          // what comes is lost
	delay, jitter time.Duration // until it goes on
	rate          int           // bytes a second of each connection; 0: as many as come
}

// wire is one connection through a link.
type wire struct {
	near, far net.Conn
	ended     chan struct{}
	end       func()
	lossy     atomic.Bool // something was lost on it
	lost      atomic.Bool // everything is lost from now on, even its end
}

// startLink starts a link that ends with the test.
func startLink(t *testing.T, upstream string) *link {
	t.Helper()
	l := &link{addr: "127.0.0.1:0", upstream: upstream, wires: map[*wire]bool{}}
	l.heal()
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cut(); l.running.Wait() })
	return l
}

// open accepts connections, at the same address as before.
func (l *link) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", l.addr)
	if err != nil {
		return err
	}
	l.listener, l.addr = listener, listener.Addr().String()
	l.running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.carry(listener, near) })
		}
	})
	return nil
}

// cut closes all connections and refuses new ones.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		l.listener.Close()
	}
	l.listener = nil
	l.endLocked(func(*wire) bool { return true })
}

// heal ends all faults. It closes the connections on which something was lost, since the rest makes no sense.
func (l *link) heal() {
	l.upwards.Store(&hazard{})
	l.downwards.Store(&hazard{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked(func(w *wire) bool { return w.lossy.Load() })
}

// loseAll loses everything on the connections that exist now, and leaves them open. New ones work.
func (l *link) loseAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.wires {
		w.lost.Store(true)
	}
}

func (l *link) endLocked(which func(*wire) bool) {
	for w := range l.wires {
		if which(w) {
			w.end()
		}
	}
}

// carry carries one connection, until either side ends it or the link is cut.
func (l *link) carry(listener net.Listener, near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", l.upstream)
	if err != nil {
		return
	}
	w := &wire{near: near, far: far, ended: make(chan struct{})}
	w.end = sync.OnceFunc(func() { close(w.ended); near.Close(); far.Close() })
	defer w.end()
	l.mu.Lock()
	if l.listener != listener { // cut meanwhile
		l.mu.Unlock()
		return
	}
	l.wires[w] = true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.flow(near, far, &l.upwards) })
	both.Go(func() { w.flow(far, near, &l.downwards) })
	both.Wait()
	l.mu.Lock()
	delete(l.wires, w)
	l.mu.Unlock()
}

// parcel is what was read at once, and when it is to be sent.
type parcel struct {
	bytes []byte
	due   time.Time
}

// flow carries one direction. A slow link reads no faster than it sends, so that data waits at the sender.
func (w *wire) flow(from, to net.Conn, now *atomic.Pointer[hazard]) {
	parcels := make(chan parcel, 1024) // of a delayed link, under way; full: the sender waits
	var sending sync.WaitGroup
	sending.Go(func() { w.send(to, parcels) })
	defer sending.Wait()
	defer close(parcels)
	for {
		bytes := make([]byte, 16<<10)
		n, err := from.Read(bytes)
		if err != nil && w.lost.Load() {
			<-w.ended
		}
		if err != nil {
			return
		}
		f := now.Load()
		if f.silent || w.lost.Load() {
			w.lossy.Store(true)
			continue
		}
		if f.rate > 0 {
			w.wait(time.Duration(n) * time.Second / time.Duration(f.rate))
		}
		due := time.Now().Add(f.delay)
		if f.jitter > 0 {
			due = due.Add(rand.N(2*f.jitter) - f.jitter)
		}
		parcels <- parcel{bytes[:n], due}
	}
}

// send sends each parcel when it is due. After the last one, the connection ends.
func (w *wire) send(to net.Conn, parcels <-chan parcel) {
	for p := range parcels {
		w.wait(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			w.end() // and what is still under way is lost
		}
	}
	w.end()
}

// wait lets time pass, unless the connection ends.
func (w *wire) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-w.ended:
	}
}
