package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

// env is where a measurement takes place. It starts processes, and ends them when it is closed.
type env struct {
	settings
	dir    string // for the binary and what processes print; removed at the end
	secret string // of tokens
	apiKey string

	closers []func() // end what was started, in that order
}

// prepare builds the binary.
func prepare(ctx context.Context, s settings) (*env, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is missing (Debian: apt-get install redis-server)")
	}
	dir, err := os.MkdirTemp("", "rollcall-bench-")
	if err != nil {
		return nil, err
	}
	e := &env{settings: s, dir: dir, secret: rand.Text(), apiKey: rand.Text()}
	e.onClose(func() { os.RemoveAll(dir) })
	if e.program != "" {
		return e, nil
	}
	e.program = filepath.Join(dir, "rollcall")
	fmt.Fprintln(os.Stderr, "building Rollcall …")
	build := exec.CommandContext(ctx, "go", "build", "-o", e.program, "rollcall/app")
	if output, err := build.CombinedOutput(); err != nil {
		e.close()
		return nil, fmt.Errorf("go build (run this inside the module): %w\n%s", err, output)
	}
	return e, nil
}

// child is an env with the same settings, in which nothing is started yet.
func (e *env) child() *env {
	return &env{settings: e.settings, dir: e.dir, secret: e.secret, apiKey: e.apiKey}
}

// turn is how long a load lasts when it takes turns with others.
func (e *env) turn() time.Duration { return e.duration / rounds }

func (e *env) onClose(f func()) { e.closers = append(e.closers, f) }

// close ends what was started, the last first.
func (e *env) close() {
	for _, f := range slices.Backward(e.closers) {
		f()
	}
	e.closers = nil
}

// server is a process that listens: an instance, a floor, or a Redis.
type server struct {
	addr    string
	command *exec.Cmd
}

func (s *server) pid() int { return s.command.Process.Pid }

func (s *server) end() {
	_ = s.command.Process.Kill() // an error means that it has ended
	_ = s.command.Wait()
}

// start starts a server on a free port and waits until it is ready. It ends with the env, and even if this
// process is killed. What it prints is in a file until then; the error holds the end of that.
func (e *env) start(
	ctx context.Context, ready func(context.Context, *server) bool, command func(addr string) *exec.Cmd,
) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().String()
	listener.Close()
	output, err := os.CreateTemp(e.dir, "output-")
	if err != nil {
		return nil, err
	}
	defer output.Close()
	s := &server{addr: addr, command: command(addr)}
	s.command.Stdout, s.command.Stderr, s.command.Dir = output, output, e.dir
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	e.onClose(s.end)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for !ready(ctx, s) {
		if wait(ctx, 10*time.Millisecond) != nil {
			printed, _ := os.ReadFile(output.Name())
			printed = printed[max(0, len(printed)-2000):]
			return nil, fmt.Errorf("%s is not ready within 10 s: %s", s.command, printed)
		}
	}
	return s, nil
}

// redisServer is a redis-server without persistence.
type redisServer struct {
	*server
	client rueidis.Client // for asking what it has done
}

func (e *env) startRedis(ctx context.Context) (*redisServer, error) {
	r := &redisServer{}
	answers := func(_ context.Context, s *server) (ok bool) {
		var err error
		r.client, err = rueidis.NewClient(redisOption(s.addr))
		return err == nil
	}
	var err error
	r.server, err = e.start(ctx, answers, func(addr string) *exec.Cmd {
		host, port, _ := net.SplitHostPort(addr)
		return exec.Command("redis-server", "--port", port, "--bind", host, "--save", "", "--daemonize", "no")
	})
	if err == nil {
		e.onClose(r.client.Close)
	}
	return r, err
}

// redisOption is how an instance connects.
func redisOption(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
		PipelineMultiplex: -1,
	}
}

// startInstances starts instances on one Redis, with their default settings.
func (e *env) startInstances(ctx context.Context, n int, redis *redisServer) ([]*server, error) {
	return e.startMany(ctx, n, func(addr string) *exec.Cmd {
		command := exec.Command(e.program)
		command.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
			return strings.HasPrefix(variable, "ROLLCALL_") // it would not be the default
		}), e.instance...)
		command.Env = append(command.Env, "ROLLCALL_ADDR="+addr, "ROLLCALL_REDIS_URL=redis://"+redis.addr,
			"ROLLCALL_JWT_SECRET="+e.secret, "ROLLCALL_API_KEYS="+e.apiKey)
		return command
	})
}

// startFloors starts servers that do the least: see floor.go.
func (e *env) startFloors(ctx context.Context, n int) ([]*server, error) {
	return e.startMany(ctx, n, func(addr string) *exec.Cmd {
		return exec.Command("/proc/self/exe", "floor", addr)
	})
}

func (e *env) startMany(
	ctx context.Context, n int, command func(addr string) *exec.Cmd,
) (servers []*server, err error) {
	for range n {
		s, err := e.start(ctx, isReady, command)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func isReady(ctx context.Context, s *server) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
