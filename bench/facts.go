package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// facts says what the numbers depend on.
func (h *house) facts() string {
	redis, _ := exec.Command(h.redis, "--version").Output()
	_, version, _ := strings.Cut(string(redis), "v=")
	version, _, _ = strings.Cut(version, " ")
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("Measured on %s: %d cores (%s) for instances, Redis and load together; Linux %s, Go %s, Redis %s. %s",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), processor(), strings.TrimSpace(string(kernel)),
		strings.TrimPrefix(runtime.Version(), "go"), version, h.bystanders())
}

// processor is its name, as the kernel has it.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(info) {
		if name, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// bystanders says how much of the machine went to programs that are not part of the bench: the more, the less the numbers say.
func (h *house) bystanders() string {
	now, err := takeUsedTime()
	if err != nil {
		return ""
	}
	others := (now.all - h.start.all) - (now.ours - h.start.ours)
	total := now.at.Sub(h.start.at) * time.Duration(runtime.NumCPU())
	return fmt.Sprintf("Other programs took %.0f%% of the cores meanwhile.", 100*max(0, others.Seconds()/total.Seconds()))
}

// usedTime is the processor time used up to a moment.
type usedTime struct {
	at   time.Time
	all  time.Duration // by all programs
	ours time.Duration // by this process, and its children that have ended
}

func takeUsedTime() (u usedTime, err error) {
	u.at = time.Now()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if err := syscall.Getrusage(who, &usage); err != nil {
			return u, fmt.Errorf("processor time: %w", err)
		}
		u.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, fmt.Errorf("processor time: %w", err)
	}
	var user, nice, system, idle, wait, interrupts, soft, stolen int64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &interrupts, &soft, &stolen); err != nil {
		return u, fmt.Errorf("processor time: /proc/stat: %w", err)
	}
	u.all = time.Duration(user+nice+system+interrupts+soft+stolen) * tick
	return u, nil
}
