// Package redistest gives tests a Redis: a real redis-server of their own, which they may kill, pause and
// empty, a whole Cluster or Sentinel deployment of them, or the in-process one. A machine without
// redis-server fails the test. All tests run on another server, an older Redis or a Valkey, if
// ROLLCALL_TEST_REDIS is its path.
package redistest

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
)

// Server is a running Redis.
type Server struct {
	Addr string // host:port

	t        testing.TB
	security *Security             // nil: none
	args     []string              // its command line
	process  *exec.Cmd             // nil for the in-process one
	asking   func() rueidis.Client // the client of Ask, made once
}

// Start starts a redis-server that ends with the test. Arguments are those of its command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartSecure(t, nil, args...)
}

// StartSecure starts a redis-server that is guarded.
func StartSecure(t testing.TB, security *Security, args ...string) *Server {
	t.Helper()
	return start(&Server{t: t, security: security}, func(s *Server) []string { return s.plus(args...) })
}

// plus is the command line of a server that keeps nothing, and more. Of an option given twice, the last
// counts.
func (s *Server) plus(args ...string) []string {
	plain := []string{"--bind", "127.0.0.1", "--port", s.port(), "--save", "", "--appendonly", "no", "--dir",
		s.t.TempDir()}
	return slices.Concat(plain, s.security.args(s.port()), args)
}

// StartsProcess says that the test starts a program. A short run (go test -short) skips the test here: it
// starts no process.
func StartsProcess(t testing.TB, program string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("a short run starts no process, such as %s", program)
	}
}

// start starts a server at a free address, which its command line has in it.
func start(s *Server, commandLine func(*Server) []string) *Server {
	s.t.Helper()
	StartsProcess(s.t, "redis-server")
	var err error
	for range 10 { // the free port may be taken by another before redis-server has it
		s.Addr = freeAddr(s.t)
		s.args = commandLine(s)
		if err = s.launch(); err == nil {
			s.t.Cleanup(s.Kill)
			s.asking = sync.OnceValue(s.Client)
			return s
		}
	}
	s.t.Fatal(err)
	return nil
}

// StartInProcess starts the in-process Redis.
func StartInProcess(t testing.TB) *Server {
	s := &Server{t: t, Addr: miniredis.RunT(t).Addr()}
	s.asking = sync.OnceValue(s.Client)
	return s
}

// Each runs a test against a real redis-server and against the in-process one, in parallel with other tests.
func Each(t *testing.T, test func(*testing.T, *Server)) {
	t.Parallel()
	t.Run("redis-server", func(t *testing.T) { t.Parallel(); test(t, Start(t)) })
	t.Run("in-process", func(t *testing.T) { t.Parallel(); test(t, StartInProcess(t)) })
}

// launch starts the process and waits until it says that it is ready, or ends.
func (s *Server) launch() error {
	s.t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv("ROLLCALL_TEST_REDIS"), "redis-server"))
	if err != nil {
		s.t.Fatal("redis-server is missing; on Debian: apt-get install redis-server. " +
			"`make deps` does it as root.")
	}
	s.process = exec.Command(path, s.args...)
	out, err := s.process.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if isReady(lines.Text()) {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
			return nil
		}
		said = append(said, lines.Text())
	}
	return fmt.Errorf("redis-server did not start: %w\n%s", s.process.Wait(), strings.Join(said, "\n"))
}

// isReady looks for what a server, or a Sentinel, says when it serves.
func isReady(line string) bool {
	return strings.Contains(line, "Ready to accept connections") || strings.Contains(line, "+monitor master")
}

// Kill ends the process at once, and with it all it held.
func (s *Server) Kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// Restart starts a killed server again at the same address, empty.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
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
func (s *Server) URL() string { return s.security.url(nil, s) }

// Option is how clients connect: without a cache and without retries, as the service does.
func (s *Server) Option() rueidis.ClientOption {
	option := rueidis.ClientOption{
		InitAddress: []string{s.Addr}, ForceSingleClient: true, AlwaysRESP2: true,
		DisableCache: true, DisableRetry: true, PipelineMultiplex: -1, ConnWriteTimeout: Patience,
	}
	s.security.secure(&option)
	return option
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

func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
