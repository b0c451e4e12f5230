package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// house holds what all stages share.
type house struct {
	// static after prepare
	settings
	dir     string // for the binary, and where children run; removed at the end
	program string // the binary of Rollcall
	self    string // this one, for processes that load and for floors
	redis   string // redis-server
	secret  string // of tokens
	apiKey  string
	files   int // that a process may have open
	start   usedTime

	crowds int // gathered so far; owned by the measurement that runs
}

// prepare builds the binary and finds the rest.
func prepare(ctx context.Context, s settings) (*house, error) {
	h := &house{settings: s, secret: rand.Text(), apiKey: rand.Text()}
	var err error
	if h.redis, err = exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is missing: install Redis 7 or newer (on Debian: apt-get install redis-server) and try again")
	}
	if h.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	var files syscall.Rlimit
	if err = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	h.files = int(min(files.Cur, 1<<20))
	if room := socketsFor(h.files); max(s.connections, s.users) > room {
		return nil, fmt.Errorf("-connections is %d and -users %d, but a process here may have only %d files open: want at most %d, or raise ulimit -n",
			s.connections, s.users, h.files, room)
	}
	if h.dir, err = os.MkdirTemp("", "rollcall-bench-"); err != nil {
		return nil, err
	}
	if err = h.build(ctx); err == nil {
		h.start, err = takeUsedTime()
	}
	if err != nil {
		h.clear()
		return nil, err
	}
	return h, nil
}

// filesSpare is how many files a process needs besides its sockets' connections, and some more.
const filesSpare = 200

// socketsFor is how many sockets a process may have that may open so many files: an instance keeps a tenth for others.
func socketsFor(files int) int { return files - max(filesSpare, files/10) }

func (h *house) build(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "building Rollcall …")
	h.program = filepath.Join(h.dir, "rollcall")
	output, err := exec.CommandContext(ctx, "go", "build", "-o", h.program, "rollcall/app").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build (it must run inside the module): %w\n%s", err, output)
	}
	return nil
}

func (h *house) clear() { os.RemoveAll(h.dir) }
