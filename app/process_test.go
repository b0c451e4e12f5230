package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rollcall/lua/redistest"
)

// binary builds the service once, as users run it, in binaryDir.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rollcall")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "rollcall")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: "go build", Err: &buildError{string(out)}}
	}
	return path, nil
})

var binaryDir string // empty: it was not needed

func removeBinary() {
	if binaryDir != "" {
		os.RemoveAll(binaryDir)
	}
}

type buildError struct{ out string }

func (e *buildError) Error() string { return e.out }

// process is an instance in a process of its own. To clients it is an App.
type process struct {
	*App
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{}
	once   sync.Once
}

// startProcess starts an instance that can be killed.
func startProcess(t *testing.T, flags ...string) *process {
	t.Helper()
	return startBinary(t, mustBinary(t), flags...)
}

func mustBinary(t *testing.T) string {
	t.Helper()
	redistest.StartsProcess(t, "an instance")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func startBinary(t *testing.T, path string, flags ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, testFlags(flags)...), exited: make(chan struct{})}
	p.cmd.SysProcAttr = endWithUs(syscall.SIGKILL)
	log, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.killInstance)
	lines := bufio.NewScanner(log)
	if !lines.Scan() {
		t.Fatalf("the instance said nothing: %v", p.cmd.Wait())
	}
	var first struct{ Msg, Addr, Instance string }
	if err := json.Unmarshal(lines.Bytes(), &first); err != nil || first.Msg != "listening" ||
		first.Addr == "" {
		t.Fatalf("the first line of the log is %s", lines.Bytes())
	}
	p.App = &App{Addr: first.Addr, Instance: first.Instance}
	go func() {
		var last []string // shown if the test fails
		for lines.Scan() {
			if !json.Valid(lines.Bytes()) {
				t.Errorf("a line of the log is not JSON: %s", lines.Bytes())
			}
			last = append(last[max(0, len(last)-99):], lines.Text())
		}
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("the last words of %s:\n%s", p.Instance, strings.Join(last, "\n"))
		}
		close(p.exited)
	}()
	return p
}

// killInstance ends the process at once, as a crash does.
func (p *process) killInstance() {
	p.once.Do(func() {
		p.signal(syscall.SIGKILL)
		<-p.exited
	})
}

func (p *process) signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// wantExit waits until the process has ended by itself, and checks its exit code.
func (p *process) wantExit(code int) {
	p.t.Helper()
	<-p.exited
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
}
