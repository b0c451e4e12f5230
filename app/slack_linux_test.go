package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rollcall/lua/redistest"
)

// tellSlack in its environment makes this test binary take the slack, as an instance does, and tell what became of it.
const tellSlack = "ROLLCALL_TEST_TELL_SLACK"

func tellTimerSlack() {
	err := takeTimerSlack()
	told := make(chan int) // by a goroutine in a thread that Go started, as it did all others
	go func() {
		runtime.LockOSThread()
		slack, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		told <- slack
	}()
	fmt.Println(time.Duration(<-told), err, os.Args[1:], os.Getenv(begunAgain))
}

func TestAProcessTakesTimerSlackUnlessSomebodyChoseAnother(t *testing.T) {
	redistest.StartsProcess(t, "an instance")
	const chosen = 700 * time.Microsecond
	for given, want := range map[time.Duration]time.Duration{usualSlack: timerSlack, chosen: chosen} {
		child := exec.Command(os.Args[0], "some", "arguments")
		child.Env = append(os.Environ(), tellSlack+"=1")
		var says bytes.Buffer
		child.Stdout = &says
		if err := startWithSlack(child, given); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.TrimSpace(says.String()), fmt.Sprint(want, " <nil> [some arguments] "); got != strings.TrimSpace(want) {
			t.Errorf("given %v: %q, want %q", given, got, want)
		}
	}
}

// startWithSlack starts a process from a thread with a slack, which the process gets.
func startWithSlack(child *exec.Cmd, slack time.Duration) error {
	done := make(chan error)
	go func() {
		err := setSlack(slack)
		if err == nil {
			err = child.Start()
		}
		done <- err
	}()
	return <-done
}

// setSlack gives this goroutine a thread with a slack, which ends with it.
func setSlack(slack time.Duration) error {
	runtime.LockOSThread() // and never unlocks
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
}

func TestAnInstanceBeginsAgainWithTimerSlack(t *testing.T) {
	if err := setSlack(usualSlack); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t)
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(env, []byte(begunAgain+"=1")) {
		t.Error("the instance has not begun again")
	}
}
