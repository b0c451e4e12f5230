package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine says what the numbers depend on.
func machine() string {
	redis, _ := exec.Command("redis-server", "--version").Output()
	_, version, _ := strings.Cut(string(redis), "v=")
	version, _, _ = strings.Cut(version, " ")
	return fmt.Sprintf("Measured on %s: %d cores for instances, Redis and load together; %s, Redis %s.",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), version)
}

// cpuTime is the processor time, of user and system, that servers have used since they began.
func cpuTime(servers []*server) (total time.Duration, err error) {
	const tick = time.Second / 100 // the kernel's unit, on every architecture
	for _, s := range servers {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		_, afterName, _ := strings.Cut(string(text), ") ") // the name may hold spaces
		fields := strings.Fields(afterName)
		if len(fields) < 13 {
			return 0, fmt.Errorf("processor time: unexpected %q", text)
		}
		for _, field := range fields[11:13] { // utime and stime
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("processor time: %w", err)
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

// restingBytes waits until the memory of a process stays the same, and returns it. An instance gives memory
// back some seconds after it has become idle.
func restingBytes(ctx context.Context, pid int) (int64, error) {
	const (
		rest  = 12 * time.Second
		noise = 256 << 10 // bytes that it may move meanwhile, or half a percent
	)
	low, high, since := int64(0), int64(0), time.Now()
	for time.Since(since) <= rest {
		now, err := residentBytes(pid)
		if err != nil {
			return 0, err
		}
		low, high = min(low, now), max(high, now)
		if high-low > max(noise, high/200) {
			low, high, since = now, now, time.Now()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, errors.New("memory does not come to rest")
		}
	}
	return high, nil
}

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

// redisUsage is what a Redis server has done since it began.
type redisUsage struct {
	cpu      time.Duration
	commands map[string]int64 // how often each ran, also within scripts
}

// usage asks the server with INFO. There may be no server: then nothing was done.
func (r *redisServer) usage(ctx context.Context) (redisUsage, error) {
	u := redisUsage{commands: map[string]int64{}}
	if r == nil {
		return u, nil
	}
	text, err := r.client.Do(ctx, r.client.B().Info().Section("cpu", "commandstats").Build()).ToString()
	if err != nil {
		return u, fmt.Errorf("ask redis: %w", err)
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, _ := strconv.ParseFloat(value, 64)
			u.cpu += time.Duration(seconds * float64(time.Second))
		}
		if command, ok := strings.CutPrefix(name, "cmdstat_"); ok && command != "info" {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			u.commands[command], _ = strconv.ParseInt(calls, 10, 64)
		}
	}
	return u, nil
}

// plus adds what was done at another time; with sign -1 it is the difference.
func (u redisUsage) plus(other redisUsage, sign int64) redisUsage {
	sum := redisUsage{cpu: u.cpu + time.Duration(sign)*other.cpu, commands: maps.Clone(u.commands)}
	if sum.commands == nil {
		sum.commands = map[string]int64{}
	}
	for name, calls := range other.commands {
		sum.commands[name] += sign * calls
	}
	return sum
}
