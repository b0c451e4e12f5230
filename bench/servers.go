package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// redisServer is a redis-server without persistence.
type redisServer struct {
	*process
	addr   string
	client rueidis.Client // for asking what it has done
}

func (s *stage) startRedis(ctx context.Context) (*redisServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	command := exec.Command(s.redis, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")
	child, err := s.start("redis-server", command, func(string) {})
	if err != nil {
		return nil, err
	}
	r := &redisServer{process: child, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	err = r.until(ctx, "answers", func(context.Context) bool {
		r.client, err = rueidis.NewClient(redisOption(r.addr))
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	s.atEnd(r.client.Close)
	return r, nil
}

// redisOption is how an instance connects, so that what is measured in this process has the same client.
func redisOption(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true, PipelineMultiplex: -1,
	}
}

// freePort finds a port that nobody listens on, for a program that can't pick one by itself.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// server is an instance of Rollcall, or a floor.
type server struct {
	*process
	addr       string
	goroutines int // in the dump that SIGQUIT makes it print; read it only after the end
}

// startInstance starts an instance, with its default settings besides those given, and waits until it is ready.
func (s *stage) startInstance(ctx context.Context, redis *redisServer, settings ...string) (*server, error) {
	return s.startServer(ctx, "an instance", exec.Command(s.program), append(slices.Concat(settings, s.instance),
		"ROLLCALL_ADDR=127.0.0.1:0", "ROLLCALL_REDIS_URL=redis://"+redis.addr, "ROLLCALL_JWT_SECRET="+s.secret, "ROLLCALL_API_KEYS="+s.apiKey)...)
}

// startFloor starts a server that does the least: see floor.go.
func (s *stage) startFloor(ctx context.Context) (*server, error) {
	return s.startServer(ctx, "the floor", exec.Command(s.self, "floor"))
}

// startLocal starts a server that pushes without Redis: see local.go.
func (s *stage) startLocal(ctx context.Context) (*server, error) {
	return s.startServer(ctx, "the floor of a push", exec.Command(s.self, "local"))
}

func startServers(n int, start func() (*server, error)) (servers []*server, err error) {
	for range n {
		one, err := start()
		if err != nil {
			return nil, err
		}
		servers = append(servers, one)
	}
	return servers, nil
}

func pids(servers []*server) []int {
	var ids []int
	for _, one := range servers {
		ids = append(ids, one.pid())
	}
	return ids
}

// startServer starts a program that says on which address it listens, as Rollcall does, and waits until it is ready.
func (s *stage) startServer(ctx context.Context, name string, command *exec.Cmd, settings ...string) (*server, error) {
	command.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "ROLLCALL_") // would make it another than the default
	}), settings...)
	one := &server{}
	listens := make(chan string, 1) // capacity 1: it is said once, when nobody may be waiting yet
	child, err := s.start(name, command, func(line string) {
		if strings.HasPrefix(line, "goroutine ") {
			one.goroutines++
		}
		if addr := listeningAddr(line); addr != "" {
			select {
			case listens <- addr:
			default:
			}
		}
	})
	if err != nil {
		return nil, err
	}
	one.process = child
	err = one.until(ctx, "is ready", func(ctx context.Context) bool {
		select {
		case one.addr = <-listens:
		default:
		}
		return one.addr != "" && isReady(ctx, one.addr)
	})
	return one, err
}

// listeningAddr reads the address from the log's line that says it; empty if it is another line.
func listeningAddr(line string) string {
	var said struct{ Msg, Addr string }
	if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "listening" {
		return ""
	}
	return said.Addr
}

func isReady(ctx context.Context, addr string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
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
