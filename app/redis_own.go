package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// longestTempDir leaves room for the socket in the 104 bytes, on some systems 108, that the path of one
	// may have.
	longestTempDir = 60
	// forgetEvery is how often the in-process Redis looks for keys that have expired.
	forgetEvery = time.Second

	mostArguments, mostBytes = 1 << 20, 512 << 20 // of a command to it; Redis has the same limits
)

// ownRedis is the Redis in this process. It listens on a Unix socket that only processes of the same user can
// open, and whoever can open it owns the service: there is no password, and everything is in it.
type ownRedis struct {
	redis     *miniredis.Miniredis
	dir       string // of the socket, and nothing else
	url       string
	listener  net.Listener
	accepting sync.WaitGroup
	ticking   part
}

func startOwnRedis(ctx context.Context) (*ownRedis, error) {
	base := os.TempDir()
	if len(base) > longestTempDir {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "rollcall-") // of mode 0700
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "redis")
	o := &ownRedis{redis: miniredis.NewMiniRedis(), dir: dir, url: (&url.URL{Scheme: "unix", Path: path}).String()}
	if o.listener, err = net.Listen("unix", path); err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = o.serve()
	}
	if err != nil {
		o.close()
		return nil, err
	}
	o.ticking = begin(ctx, func(ctx context.Context) {
		ticker := time.NewTicker(forgetEvery)
		defer ticker.Stop()
		o.forget(ctx, ticker.C)
	})
	return o, nil
}

func (o *ownRedis) serve() error {
	first, err := o.redis.Dial() // starts it without a listener
	if err != nil {
		return err
	}
	first.Close()
	server := o.redis.Server()
	o.accepting.Go(func() {
		for {
			conn, err := o.listener.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				time.Sleep(redisDial / 10) // no files left, perhaps: it passes
			default:
				server.ServeConn(guard(conn))
			}
		}
	})
	return nil
}

// forget lets keys expire: by itself miniredis does not.
func (o *ownRedis) forget(ctx context.Context, ticks <-chan time.Time) {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticks:
			o.redis.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (o *ownRedis) close() {
	o.ticking.end()
	if o.listener != nil {
		o.listener.Close()
	}
	o.accepting.Wait()
	o.redis.Close()
	os.RemoveAll(o.dir)
}

// guardedConn lets only well-formed commands through. Others would end the process: an empty one, or a length
// that no memory has.
type guardedConn struct {
	net.Conn
	reader    *bufio.Reader
	arguments int    // of the command at hand that are still to come
	bytes     int    // of the argument at hand that are still to come
	line      []byte // that was checked and is still to be handed out; in the reader's buffer
}

func guard(conn net.Conn) *guardedConn {
	return &guardedConn{Conn: conn, reader: bufio.NewReader(conn)}
}

func (g *guardedConn) Read(p []byte) (n int, err error) {
	if g.bytes == 0 && len(g.line) == 0 {
		if err := g.readLine(); err != nil {
			return 0, err
		}
	}
	if len(g.line) > 0 {
		n = copy(p, g.line)
		g.line = g.line[n:]
		return n, nil
	}
	n, err = g.reader.Read(p[:min(len(p), g.bytes)])
	g.bytes -= n
	return n, err
}

// readLine reads how many arguments a command has, or how many bytes an argument.
func (g *guardedConn) readLine() error {
	line, err := g.reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) { // at which a reader above this one would read on, for ever
		return fmt.Errorf("not a command of Redis: %.20q…", line)
	}
	if err != nil {
		return err
	}
	kind, least, most := byte('$'), 0, mostBytes
	if g.arguments == 0 {
		kind, least, most = '*', 1, mostArguments
	}
	number, isLine := bytes.CutSuffix(line, []byte("\r\n"))
	n, err := strconv.Atoi(string(bytes.TrimPrefix(number, []byte{kind})))
	if !isLine || line[0] != kind || err != nil || n < least || n > most {
		return fmt.Errorf("not a command of Redis: %.20q", line)
	}
	if g.line = line; kind == '*' { // until it is handed out, nothing is read
		g.arguments = n
		return nil
	}
	g.arguments--
	g.bytes = n + len("\r\n")
	return nil
}
