package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// measurement is one part of the bench.
type measurement struct {
	name  string // for -only
	what  string
	run   func(context.Context, *stage) ([]row, error) // the rows are good even if there is an error
	limit func(settings) time.Duration                 // the longest it may take; nil: measurementLimit, and without -only it is run
}

var measurements = []measurement{
	{"pushes", "pushes through HTTP to sockets, one request each; one, two and eight instances", measurePushes, nil},
	{"output", "what Redis sends for a push; one, two and eight instances", measureOutput, nil},
	{"bulk", "pushes through HTTP to sockets, streamed and many a request", measureBulk, nil},
	{"script", "push.lua alone", measureScript, nil},
	{"router", "pushes through the router alone, without HTTP and sockets", measureRouter, nil},
	{"emit", "emits to all sockets of two instances", measureEmit, nil},
	{"stall", "one client that does not read, and all others", measureStall, nil},
	{"flood", "one user who floods, and pushes to all others", measureFlood, nil},
	{"mirror", "users joining, and their memory in Redis", measureMirror, nil},
	{"reads", "reads of many present users", measureReads, nil},
	{"recovery", "Redis emptied, and filled again", measureRecovery, nil},
	{"crash", "an instance killed", measureCrash, nil},
	{"connects", "sockets connecting to one instance", measureConnects, nil},
	{"idle", "what idle sockets cost in memory and in Redis commands", measureIdle, nil},
	{"hold", "very many sockets held for a long time", measureHold, holdLimit},
}

// measurementLimit is the longest any measurement may take; one that hangs must not hang the bench.
const measurementLimit = 3 * time.Minute

// settings are the sizes of everything.
type settings struct {
	only        []string
	duration    time.Duration
	payload     int
	callers     int
	users       int
	rate        int
	audience    int
	mirrored    int
	present     int
	connections int
	dialers     int
	idle        time.Duration
	others      int
	held        int
	hold        time.Duration
	instance    []string // more settings of each instance
}

func main() {
	if len(os.Args) == 2 && roles[os.Args[1]] != nil {
		exit(roles[os.Args[1]]())
	}
	s, err := parseSettings(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(s)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures and prints the table, with as many rows as there are.
func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	h, err := prepare(ctx, s)
	if err != nil {
		return err
	}
	defer h.clear()

	var rows []row
	var faults []error
	for _, m := range measurements {
		if !slices.Contains(s.only, m.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s …\n", m.name, m.what)
		started := time.Now()
		found, err := measure(ctx, h, m)
		fmt.Fprintf(os.Stderr, "%s took %.0f s\n", m.name, time.Since(started).Seconds())
		rows = append(rows, found...)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	if len(rows) > 0 {
		fmt.Printf("%s\n\n%s", h.facts(), table(rows))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return errors.Join(faults...)
}

func measure(ctx context.Context, h *house, m measurement) ([]row, error) {
	limit := measurementLimit
	if m.limit != nil {
		limit = m.limit(h.settings)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return onStage(ctx, h, m.run)
}

// onStage runs something on a stage of its own, which is cleared afterwards.
func onStage[T any](ctx context.Context, h *house, run func(context.Context, *stage) (T, error)) (T, error) {
	s := &stage{house: h}
	defer s.clear()
	found, err := run(ctx, s)
	if err != nil && context.Cause(ctx) != context.Canceled {
		fmt.Fprint(os.Stderr, s.lastWords())
	}
	return found, err
}

func parseSettings(args []string) (s settings, err error) {
	var names, usual, only []string
	for _, m := range measurements {
		names = append(names, m.name)
		if m.limit == nil {
			usual = append(usual, m.name)
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	list := flags.String("only", strings.Join(usual, ","), "what to measure, comma-separated")
	flags.DurationVar(&s.duration, "duration", 5*time.Second, "how long each load lasts")
	flags.IntVar(&s.payload, "payload", 128, "pushes, output, emit, router, flood: bytes of the data of a push")
	flags.IntVar(&s.callers, "callers", 64, "pushes, router: callers that push one at a time")
	flags.IntVar(&s.users, "users", 2000, "pushes, output, router: users, each with one socket")
	flags.IntVar(&s.rate, "rate", 1000, "pushes, stall: pushes a second while the delay is measured")
	flags.IntVar(&s.audience, "audience", 5000, "emit: sockets that get every emit")
	flags.IntVar(&s.mirrored, "mirrored", 100_000, "mirror, recovery: users who join")
	flags.IntVar(&s.present, "present", 1_000_000, "reads, recovery: users who are present")
	flags.IntVar(&s.connections, "connections", 15_000, "connects, idle: sockets on one instance")
	flags.IntVar(&s.dialers, "dialers", 64, "connects, idle: sockets that connect at a time")
	flags.DurationVar(&s.idle, "idle", 10*time.Second, "idle: how long Redis commands are counted")
	flags.IntVar(&s.others, "others", 10_000, "stall: sockets beside the one whose client does not read")
	flags.IntVar(&s.held, "held", 100_000, "hold: sockets")
	flags.DurationVar(&s.hold, "hold", 10*time.Minute, "hold: how long they are held")
	flags.Func("instance", "a setting of every instance, such as ROLLCALL_CLIENT_RATE=0; may be given several times", func(setting string) error {
		s.instance = append(s.instance, setting)
		return nil
	})
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "bench measures Rollcall and prints a Markdown table. It needs Linux, Go and redis-server.\n\n  go run ./bench [flags]\n\nIt can measure:\n")
		for _, m := range measurements {
			fmt.Fprintf(flags.Output(), "  %-10s%s\n", m.name, m.what)
		}
		fmt.Fprint(flags.Output(), "\nFlags:\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	for name := range strings.SplitSeq(*list, ",") {
		if !slices.Contains(names, name) {
			return s, fmt.Errorf("-only: there is no %q; want some of %s", name, strings.Join(names, ","))
		}
		only = append(only, name)
	}
	s.only = only
	return s, s.validate(flags.Args())
}

func (s settings) validate(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected %q; -h lists the flags", rest[0])
	}
	if runtime.GOOS != "linux" {
		return errors.New("this needs Linux: what processes use is read from /proc")
	}
	for _, n := range []struct {
		flag        string
		value, from int
	}{
		{"payload", s.payload, stampSize}, {"callers", s.callers, mostInstances}, {"users", s.users, mostInstances}, {"rate", s.rate, 1}, {"audience", s.audience, usualInstances},
		{"mirrored", s.mirrored, 1}, {"connections", s.connections, 1}, {"dialers", s.dialers, 1}, {"others", s.others, usualInstances}, {"held", s.held, instancesHeld},
	} {
		if n.value < n.from {
			return fmt.Errorf("-%s is %d: want at least %d", n.flag, n.value, n.from)
		}
	}
	if s.users%mostInstances != 0 {
		return fmt.Errorf("-users is %d: want a multiple of %d, so that each instance has as many", s.users, mostInstances)
	}
	if s.duration < time.Second || s.duration > 20*time.Second || s.idle < time.Second || s.idle > time.Minute {
		return errors.New("-duration: want 1s to 20s; -idle: want 1s to 1m")
	}
	return nil
}
