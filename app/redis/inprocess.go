package redis

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// maxTempDir is the longest path of a directory that leaves room for our socket: the path of a Unix
	// socket may have 104 bytes on some systems, 108 on others.
	maxTempDir = 60
	// expireEvery is how often the in-process Redis looks for keys that have expired.
	expireEvery = time.Second
	// acceptPause is how long no connection is accepted after one could not be.
	acceptPause = 200 * time.Millisecond
)

// inProcess is the Redis in this process. It listens on a Unix socket that only processes of the same user
// can open. There is no password: whoever can open the socket owns the service.
type inProcess struct {
	redis    *miniredis.Miniredis
	dir      string // has the socket in it, and nothing else
	url      string
	listener net.Listener
	stop     context.CancelFunc // ends expire
	running  sync.WaitGroup     // accept and expire
}

func startInProcess() (*inProcess, error) {
	base := os.TempDir()
	if len(base) > maxTempDir {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "rollcall-") // of mode 0700
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	path := filepath.Join(dir, "redis")
	address := url.URL{Scheme: "unix", Path: path}
	s := &inProcess{redis: miniredis.NewMiniRedis(), dir: dir, url: address.String(), stop: stop}
	if err := s.listen(path); err != nil {
		s.close()
		return nil, err
	}
	s.running.Go(s.accept)
	s.running.Go(func() {
		ticker := time.NewTicker(expireEvery)
		defer ticker.Stop()
		s.expire(ctx, ticker.C)
	})
	return s, nil
}

func (s *inProcess) listen(path string) (err error) {
	if s.listener, err = net.Listen("unix", path); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	first, err := s.redis.Dial() // starts miniredis without a listener of its own
	if err != nil {
		return err
	}
	return first.Close()
}

func (s *inProcess) accept() {
	server := s.redis.Server()
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause) // perhaps no files are left: that passes
		default:
			server.ServeConn(guard(conn))
		}
	}
}

// expire removes keys that have expired: miniredis does not do so by itself.
func (s *inProcess) expire(ctx context.Context, ticks <-chan time.Time) {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticks:
			s.redis.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (s *inProcess) close() {
	s.stop()
	if s.listener != nil {
		s.listener.Close()
	}
	s.running.Wait()
	s.redis.Close()
	os.RemoveAll(s.dir)
}
