package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit in which the kernel tells processor time, on every architecture.
const tick = time.Second / 100

// cpuTime is the processor time, of user and system, that processes have used so far.
func cpuTime(pids ...int) (total time.Duration, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		_, after, _ := strings.Cut(string(text), ") ") // behind the name, which may hold spaces
		fields := strings.Fields(after)
		if len(fields) < 13 {
			return 0, fmt.Errorf("processor time of %d: unexpected %q", pid, text)
		}
		for _, field := range fields[11:13] { // utime and stime
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("processor time of %d: %w", pid, err)
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

// residentBytes is the memory a process occupies.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	var kilobytes int64
	if _, err := fmt.Sscan(after, &kilobytes); err != nil {
		return 0, fmt.Errorf("memory of %d: %w", pid, err)
	}
	return kilobytes << 10, nil
}

// settledBytes waits until a process's memory moves no more, and returns it.
func settledBytes(ctx context.Context, pid int) (int64, error) {
	const (
		still = 12 * time.Second // longer than an instance needs to see that it is idle, and to give back what it has no use for
		noise = 256 << 10        // what it may move and still be called at rest, if that is more than half a percent
	)
	low, high, since := int64(0), int64(0), time.Now()
	for {
		now, err := residentBytes(pid)
		if err != nil {
			return 0, err
		}
		low, high = min(low, now), max(high, now)
		if high-low > max(noise, high/200) {
			low, high, since = now, now, time.Now()
		}
		if time.Since(since) > still {
			return now, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, errors.New("memory does not come to rest")
		}
	}
}

// work is what a Redis server has done so far.
type work struct {
	cpu      time.Duration
	memory   int64                    // bytes in use
	output   int64                    // bytes sent to clients, which are the instances
	answer   int64                    // bytes of what was sent to tell this, which output does not count yet
	commands map[string]int64         // how often each ran, by name; those within scripts count too
	took     map[string]time.Duration // in each, by name
}

// work asks the server, or tells nothing of none. Asking is a command, INFO, too.
func (r *redisServer) work(ctx context.Context) (work, error) {
	if r == nil {
		return work{}, nil
	}
	text, err := r.client.Do(ctx, r.client.B().Info().Section("cpu", "memory", "stats", "commandstats").Build()).ToString()
	if err != nil {
		return work{}, fmt.Errorf("ask redis: %w", err)
	}
	w := work{answer: int64(len(text)), commands: map[string]int64{}, took: map[string]time.Duration{}}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch command, isCommand := strings.CutPrefix(name, "cmdstat_"); {
		case name == "used_cpu_user", name == "used_cpu_sys":
			seconds, _ := strconv.ParseFloat(value, 64)
			w.cpu += time.Duration(seconds * float64(time.Second))
		case name == "used_memory":
			w.memory, _ = strconv.ParseInt(value, 10, 64)
		case name == "total_net_output_bytes":
			w.output, _ = strconv.ParseInt(value, 10, 64)
		case isCommand:
			var calls, micros int64
			if _, err := fmt.Sscanf(value, "calls=%d,usec=%d", &calls, &micros); err != nil {
				return work{}, fmt.Errorf("ask redis about %s: %q: %w", command, value, err)
			}
			w.commands[command], w.took[command] = calls, time.Duration(micros)*time.Microsecond
		}
	}
	return w, nil
}

// since is the difference from an earlier moment.
func (w work) since(before work) work {
	w.output -= before.answer
	return w.combine(before, -1)
}

// plus is the sum of what was done at two times.
func (w work) plus(more work) work { return w.combine(more, 1) }

func (w work) combine(other work, sign int64) work {
	sum := work{
		cpu: w.cpu + time.Duration(sign)*other.cpu, memory: w.memory + sign*other.memory, output: w.output + sign*other.output,
		commands: maps.Clone(w.commands), took: maps.Clone(w.took),
	}
	if sum.commands == nil {
		sum.commands, sum.took = map[string]int64{}, map[string]time.Duration{}
	}
	for name, ran := range other.commands {
		sum.commands[name] += sign * ran
		sum.took[name] += time.Duration(sign) * other.took[name]
	}
	return sum
}
