package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rollcall/lua/redistest"
)

// proxyKind is a reverse proxy that docs/proxies.md recommends, with the configuration that it shows.
type proxyKind struct {
	program    string // and its package in Debian
	config     string // in the folder proxies
	listens    string // how the configuration says where to listen, with %s for host and port
	args       func(file string) []string
	stop       syscall.Signal // ends it and its children at once
	fullDuplex bool           // it sends answers on while it reads the request
}

var proxyKinds = []proxyKind{
	{
		program: "haproxy", config: "haproxy.cfg", listens: "bind %s\n",
		stop: syscall.SIGKILL, fullDuplex: true,
		args: func(file string) []string { return []string{"-db", "-f", file} },
	},
	{
		program: "nginx", config: "nginx.conf", listens: "listen %s;\n",
		stop: syscall.SIGTERM, fullDuplex: true,
		args: func(file string) []string {
			also := "daemon off; error_log stderr; pid " + file + ".pid;"
			if os.Geteuid() == 0 {
				also += " user root;" // or its workers could not keep long bodies in files
			}
			return []string{"-p", filepath.Dir(file), "-c", file, "-g", also}
		},
	},
	{ // of Debian, version 2.6: newer ones can be full duplex
		program: "caddy", config: "Caddyfile", listens: "http://%s {\n", stop: syscall.SIGKILL,
		args: func(file string) []string {
			return []string{"run", "--adapter", "caddyfile", "--config", file}
		},
	},
}

// balanced is three instances in processes of their own, and each of the proxies in front of them. An
// instance that is replaced gets the same address.
type balanced struct {
	t         *testing.T
	redis     *redistest.Server
	addrs     []string
	instances []*process
	fronts    []*front
}

// front is a proxy that runs.
type front struct {
	proxyKind
	public   *App // where it listens for browsers, which see it as an instance
	backends *App // where it listens for backends
}

func startBalanced(t *testing.T) *balanced {
	t.Helper()
	b := &balanced{t: t, redis: redistest.Start(t), instances: make([]*process, 3)}
	for place := range b.instances {
		b.addrs = append(b.addrs, fixedAddr(t))
		b.start(place)
	}
	for _, kind := range proxyKinds {
		f := startFront(t, kind, b.addrs, kind.text(t))
		b.fronts = append(b.fronts, f)
		awaitReady(t, f.backends)
	}
	return b
}

// start starts an instance at its place. Its grace is a minute, so that a slow machine makes nobody go
// offline.
func (b *balanced) start(place int) {
	b.t.Helper()
	// At the end of the drain, sockets that have not gone are cut, with what is on its way through a proxy.
	// So the time is long enough for hundreds of clients on a busy machine.
	p := startBinary(b.t, mustBinary(b.t),
		"--addr="+b.addrs[place], "--redis-url="+b.redis.URL(), "--grace=1m", "--drain=4s")
	awaitReady(b.t, p.App)
	b.instances[place] = p
}

// awaitReady waits until an instance is ready, or a proxy has found one.
func awaitReady(t *testing.T, a *App) {
	t.Helper()
	redistest.Eventually(t, "readyz to say so", func() (answer, bool) {
		got := ask(t, a, "GET", "/readyz", "")
		return got, got.Status == 200
	})
}

// behindEach runs a part of a test behind each proxy.
func (b *balanced) behindEach(part func(*testing.T, *front)) {
	for _, f := range b.fronts {
		b.t.Run(f.program, func(t *testing.T) { part(t, f) })
	}
}

// text returns the configuration that the documents show.
func (k proxyKind) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("proxies", k.config))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// startFront starts a proxy with a configuration in which only the addresses are changed. It may open 20,000
// files, as is usual for containers.
func startFront(t *testing.T, kind proxyKind, instances []string, config string) *front {
	t.Helper()
	redistest.StartsProcess(t, kind.program)
	f := &front{kind, &App{Addr: fixedAddr(t)}, &App{Addr: fixedAddr(t)}}
	for n, addr := range instances {
		config = mustReplace(t, config, fmt.Sprintf("rollcall-%d:8080", n+1), addr)
	}
	for port, at := range map[string]*App{"8080": f.public, "8081": f.backends} {
		shown := strings.NewReplacer("listen :", "listen ").Replace(fmt.Sprintf(kind.listens, ":"+port))
		config = mustReplace(t, config, shown, fmt.Sprintf(kind.listens, at.Addr))
	}
	file := filepath.Join(t.TempDir(), kind.config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{"-c", `ulimit -n 20000; exec "$@"`, "sh", programPath(t, kind.program)}
	command = append(command, kind.args(file)...)
	runProxy(t, exec.Command("sh", command...), kind.stop, f.public, f.backends)
	return f
}

// runProxy runs a proxy until the test ends, and waits until it listens.
func runProxy(t *testing.T, cmd *exec.Cmd, stop syscall.Signal, at ...*App) {
	t.Helper()
	var says bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &says, &says, endWithUs(stop)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // where Caddy would keep what it saves
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(stop)
		<-exited
		if t.Failed() {
			t.Logf("the proxy said:\n%s", says.String())
		}
		if strings.Contains(says.String(), "token=eyJ") {
			t.Errorf("a proxy's log has a token in it:\n%s", says.String())
		}
	})
	for _, one := range at {
		awaitListener(t, one.Addr, exited)
	}
}

// awaitListener waits until something listens there.
func awaitListener(t *testing.T, addr string, exited <-chan struct{}) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for giveUp := time.After(redistest.Patience); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return
		}
		select {
		case <-again.C:
		case <-exited:
			t.Fatal("the proxy has ended")
		case <-giveUp:
			t.Fatalf("nothing listens at %s", addr)
		}
	}
}

// programPath finds a program that the tests need, also in /usr/sbin, where Debian keeps servers and a user's
// PATH does not look.
func programPath(t *testing.T, program string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing; on Debian: apt-get install %s. `make test` does it as root.", program, program)
	return ""
}

func mustReplace(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("the configuration has no %q:\n%s", old, text)
	}
	return strings.ReplaceAll(text, old, replacement)
}

var fixedAddrs sync.Map // those that were given out

// fixedAddr returns an address that processes can have one after the other. Its port is below those that
// systems give to processes that ask for any.
func fixedAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if _, given := fixedAddrs.LoadOrStore(addr, true); given {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free from 20000 to 31999")
	return ""
}
