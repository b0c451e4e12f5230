package nbconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// watcher is an Owner that counts what it is told.
type watcher struct{ flushed, tooSlow atomic.Int64 }

func (w *watcher) Flushed() { w.flushed.Add(1) }
func (w *watcher) TooSlow() { w.tooSlow.Add(1) }

// limits are small ones, for tests.
func limits() Limits {
	return Limits{
		Backlog: 1 << 20, Stall: 10 * time.Second,
		MessageTime: 10 * time.Second, Silence: time.Minute, UnfinishedBytes: 1 << 20,
	}
}

// wrap makes a Conn around another connection.
func wrap(conn net.Conn) (*Conn, *watcher) {
	c, owner := &Conn{}, &watcher{}
	c.Open(conn, &Group{Limits: limits()}, owner)
	return c, owner
}

// connect makes a Conn whose client is at the other end of a TCP connection with small buffers.
func connect(t *testing.T) (*Conn, *watcher, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	err = client.(*net.TCPConn).SetReadBuffer(32 << 10)
	if err := errors.Join(err, conn.(*net.TCPConn).SetWriteBuffer(16<<10)); err != nil {
		t.Fatal(err)
	}
	c, owner := wrap(conn)
	t.Cleanup(func() { client.Close(); c.Close(); c.group.Wait() })
	return c, owner, client
}

// fill writes until the kernel takes no more, and returns what was written.
func (c *Conn) fill(t *testing.T) (written []byte) {
	t.Helper()
	for n := byte(0); c.Flushed(); n++ {
		frame := bytes.Repeat([]byte{n}, 4000)
		written = append(written, frame...)
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	return written
}

func wantRead(t *testing.T, client io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v; %d expected, or they differ", n, err, len(want))
	}
}

func TestConn_SendsWhatTheKernelHadNoRoomForInOrder(t *testing.T) {
	t.Parallel()
	c, owner, client := connect(t)
	want := c.fill(t)
	for n := range byte(50) { // behind the backlog
		frame := bytes.Repeat([]byte{n}, 1000)
		want = append(want, frame...)
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	wantRead(t, client, want)
	client.Close()
	c.group.Wait() // the flusher ends by itself
	if flushed, slow := owner.flushed.Load(), owner.tooSlow.Load(); flushed == 0 || slow != 0 {
		t.Errorf("the owner was told %d times that all is flushed, %d times too slow", flushed, slow)
	}
}

func TestConn_CopiesWhatItKeeps(t *testing.T) {
	t.Parallel()
	c, _, client := connect(t)
	want := c.fill(t)
	frame := []byte("frame")
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
	copy(frame, "other")
	wantRead(t, client, append(want, "frame"...))
}

func TestConn_ClosesWhenItsBacklogIsFull(t *testing.T) {
	t.Parallel()
	c, owner, _ := connect(t)
	c.fill(t)
	frame := make([]byte, 60_000)
	var err error
	for err == nil {
		_, err = c.Write(frame)
	}
	if <-c.Done(); !errors.Is(err, ErrBacklogFull) || owner.tooSlow.Load() != 1 {
		t.Errorf("%v, too slow: %d", err, owner.tooSlow.Load())
	}
	if _, err := c.Write(frame); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after that: %v", err)
	}
}

func TestConn_WritesAPingBetweenFramesOnly(t *testing.T) {
	t.Parallel()
	c, _, client := connect(t)
	err := c.Batch(func() error {
		for _, part := range []string{"the be", "ginning"} { // as gorilla/websocket writes a long frame
			if _, err := c.Write([]byte(part)); err != nil {
				return err
			}
			c.Ping()
			c.Ping() // one is enough
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Ping()
	if _, err := c.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	wantRead(t, client, []byte("the beginning"+"\x89\x00"+"\x89\x00"+"after"))
}

func TestConn_SeesWhatTheKernelHoldsShrink(t *testing.T) {
	t.Parallel()
	c, _, client := connect(t)
	c.fill(t)
	before := c.unsent()
	if before == 0 {
		t.Skip("this system does not say what the kernel holds")
	}
	read := make([]byte, 1000)
	for c.unsent() >= before { // each read makes room in the end
		if _, err := client.Read(read); err != nil {
			t.Fatal(err)
		}
	}
}

// slowly reads little at a time, and seldom.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Conn.Read(p[:min(len(p), 1000)])
}

func TestConn_KeepsAClientThatReadsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c, owner := wrap(there)
		sent := make([]byte, 5*1000*int(limits().Stall/time.Second)) // for five times as long
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadFull(slowly{here}, make([]byte, len(sent)))
		if err != nil || owner.tooSlow.Load() > 0 {
			t.Errorf("it was closed after %d bytes: %v", got, err)
		}
		c.Close()
		c.group.Wait()
	})
}

func TestConn_ClosesWhenTheClientStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c, owner := wrap(there)
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(here, make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if c.group.Wait(); owner.tooSlow.Load() != 1 || time.Since(began) > 2*limits().Stall {
			t.Errorf("too slow: %d, after %v", owner.tooSlow.Load(), time.Since(began))
		}
	})
}

// stuck is a connection whose writes end only when it is told.
type stuck struct {
	net.Conn
	end chan struct{}
}

func (s stuck) Write([]byte) (int, error) { <-s.end; return 0, net.ErrClosed }

func TestGroup_WaitsForEverythingOfAConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, there := net.Pipe()
		conn := stuck{there, make(chan struct{})}
		c, _ := wrap(conn)
		c.CloseAfter(time.Hour)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Close()
		c.CloseAfter(time.Hour)
		waited := make(chan struct{})
		go func() { c.group.Wait(); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("the flusher was not waited for")
		default:
		}
		began := time.Now()
		close(conn.end)
		if <-waited; time.Since(began) != 0 {
			t.Error("a timer was left")
		}
	})
}
