// Package redistest gives tests a Redis: a real redis-server of their own, which they may kill, pause and empty, or the in-process
// one. A machine without redis-server fails the test.
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
)

// Server is a running Redis.
type Server struct {
	Addr string // host:port

	t       testing.TB
	args    []string
	process *exec.Cmd // nil for the in-process one
}

// Start starts a redis-server that ends with the test. Arguments are those of its command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, args: args}
	for range 10 { // the free port may be taken by another before redis-server has it
		s.Addr = freeAddr(t)
		if s.launch() {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatal("redis-server did not start")
	return nil
}

// StartInProcess starts the in-process Redis.
func StartInProcess(t testing.TB) *Server {
	return &Server{t: t, Addr: miniredis.RunT(t).Addr()}
}

// Each runs a test against a real redis-server and against the in-process one.
func Each(t *testing.T, test func(*testing.T, *Server)) {
	t.Run("redis-server", func(t *testing.T) { t.Parallel(); test(t, Start(t)) })
	t.Run("in-process", func(t *testing.T) { t.Parallel(); test(t, StartInProcess(t)) })
}

// launch starts the process and waits until it says that it is ready, or ends.
func (s *Server) launch() bool {
	s.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("redis-server is missing; on Debian: apt-get install redis-server. `make test` does it as root.")
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	args := append([]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", s.t.TempDir()}, s.args...)
	s.process = exec.Command(path, args...)
	out, err := s.process.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "Ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
			return true
		}
	}
	_ = s.process.Wait()
	return false
}

// Kill ends the process at once, and with it all it held.
func (s *Server) Kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// Restart starts a killed server again at the same address, empty.
func (s *Server) Restart() {
	s.t.Helper()
	if !s.launch() {
		s.t.Fatal("redis-server did not start again")
	}
}

// Pause makes the server hang, as a machine does that swaps.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// URL is where clients find it.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Option is how clients connect: without a cache and without retries, as the service does.
func (s *Server) Option() rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{s.Addr}, ForceSingleClient: true, AlwaysRESP2: true, DisableCache: true, DisableRetry: true, PipelineMultiplex: -1,
	}
}

// Client is a client that ends with the test.
func (s *Server) Client() rueidis.Client {
	s.t.Helper()
	client, err := rueidis.NewClient(s.Option())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// Do runs a command and returns its answer, which must not be an error other than nil.
func (s *Server) Do(client rueidis.Client, words ...string) rueidis.RedisResult {
	s.t.Helper()
	result := client.Do(context.Background(), client.B().Arbitrary(words...).Build())
	if err := result.Error(); err != nil && !rueidis.IsRedisNil(err) {
		s.t.Fatalf("%s: %v", words[0], err)
	}
	return result
}

var prefixes atomic.Int64

// Prefix is one that no other test uses.
func Prefix() string { return fmt.Sprintf("test%d:", prefixes.Add(1)) }

func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
