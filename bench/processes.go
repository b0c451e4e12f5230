package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// stage is where one measurement takes place.
type stage struct {
	*house

	mu sync.Mutex
	// mu guards the following
	endings   []func() // of what was started, in that order
	processes []*process
}

// atEnd has something done when the measurement is over.
func (s *stage) atEnd(end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endings = append(s.endings, end)
}

// clear ends all that was started on this stage, the last first, and waits for it.
func (s *stage) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.endings) > 0 {
		last := len(s.endings) - 1
		s.endings[last]()
		s.endings = s.endings[:last]
	}
}

// process is a child of this one.
type process struct {
	// static after start
	name    string
	command *exec.Cmd
	heard   func(line string) // called with each line it prints, from one goroutine
	ended   chan struct{}     // closed when it has ended and all it printed was heard

	mu sync.Mutex
	// mu guards the following
	last []string // lines it printed, at most lastLines: what it says when it fails
}

const lastLines = 10

// start starts a process, which ends with the stage. What it prints on stderr, and on stdout unless that is taken, is heard line by line.
func (s *stage) start(name string, command *exec.Cmd, heard func(line string)) (*process, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	command.Stderr = write
	if command.Stdout == nil {
		command.Stdout = write
	}
	command.Dir = s.dir
	command.SysProcAttr = childAttributes()
	p := &process{name: name, command: command, heard: heard, ended: make(chan struct{})}
	err = command.Start()
	write.Close()
	if err != nil {
		read.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go p.follow(read)
	s.atEnd(p.end)
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	return p, nil
}

// lastWords are what the processes on this stage printed last, to find out why a measurement failed.
func (s *stage) lastWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all strings.Builder
	for _, p := range s.processes {
		if said := p.lastWords(); said != "" {
			fmt.Fprintf(&all, "%s (process %d) last said:\n%s\n", p.name, p.pid(), said)
		}
	}
	return all.String()
}

// follow hears what the process prints and waits for its end.
func (p *process) follow(output io.ReadCloser) {
	defer close(p.ended)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		p.mu.Lock()
		p.last = append(p.last[max(0, len(p.last)-lastLines+1):], lines.Text())
		p.mu.Unlock()
		p.heard(lines.Text())
	}
	_, _ = io.Copy(io.Discard, output) // after a line too long to scan, so that the process can go on printing
	output.Close()
	_ = p.command.Wait() // how it ended is of no use: we kill them all
}

// end kills the process. Nothing it could still do matters: its state is in a Redis that ends too.
func (p *process) end() {
	_ = p.command.Process.Kill() // an error means that it has ended
	<-p.ended
}

func (p *process) pid() int { return p.command.Process.Pid }

func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.last, "\n")
}

// until asks again and again, for at most a few seconds, whether the process is as wanted.
func (p *process) until(ctx context.Context, what string, reached func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("not within 10 s"))
	defer cancel()
	for !reached(ctx) {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended by itself", p.name)
		case <-ctx.Done():
			return fmt.Errorf("wait until %s %s: %w", p.name, what, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
