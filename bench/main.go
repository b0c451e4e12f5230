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
	name string // for -only
	what string
	run  func(context.Context, *env) ([]row, error)
}

var measurements = []measurement{
	{"pushes", "pushes over HTTP, one request each, to sockets of 1, 2 and 8 instances", measurePushes},
	{"streams", "pushes over HTTP, streamed, and many in one request", measureStreams},
	{"emits", "emits to all sockets of two instances", measureEmits},
	{"idle", "sockets connecting to one instance, and what they cost when idle", measureIdle},
	{"flood", "pushes to others while one user floods", measureFlood},
	{"reads", "presence of a million users", measureReads},
	{"recovery", "Redis emptied, and filled again, with 1 and with 64 shards", measureRecovery},
}

// The sizes of all measurements.
const (
	users       = 2000 // of "pushes" and "streams", each with one socket; a multiple of 8
	callers     = 64   // backends that push one at a time
	payload     = 128  // bytes of the data of a push
	steadyRate  = 1000 // pushes a second while delays are measured
	connections = 15_000
	present     = 1_000_000

	// A measurement that hangs must not hang the bench.
	measurementLimit = 4 * time.Minute
)

// settings come from the command line.
type settings struct {
	only     []string
	duration time.Duration // of each load
	program  string        // the binary to measure; empty: it is built
	instance []string      // more settings of each instance, such as ROLLCALL_CLIENT_RATE=0
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "floor" { // this program started itself: see floor.go
		exit(serveFloor(os.Args[2]))
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

func parseSettings(args []string) (s settings, err error) {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", strings.Join(names, ","), "what to measure, separated by commas")
	flags.DurationVar(&s.duration, "duration", 5*time.Second, "how long each load lasts, 1s to 20s")
	flags.StringVar(&s.program, "program", "", "the binary of another version to measure; empty: this one")
	flags.Func("instance", "a setting of every instance, such as ROLLCALL_CLIENT_RATE=0; repeatable",
		func(setting string) error {
			s.instance = append(s.instance, setting)
			return nil
		})
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "bench measures Rollcall and prints a Markdown table. It can measure:")
		for _, m := range measurements {
			fmt.Fprintf(flags.Output(), "  %-10s%s\n", m.name, m.what)
		}
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.only = strings.Split(*only, ",")
	for _, name := range s.only {
		if !slices.Contains(names, name) {
			return s, fmt.Errorf("-only: there is no %q; use some of %s", name, strings.Join(names, ","))
		}
	}
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("unexpected %q; -h lists the flags", flags.Args())
	case runtime.GOOS != "linux":
		return s, errors.New("this needs Linux: it reads what processes use from /proc")
	case s.duration < time.Second || s.duration > 20*time.Second:
		return s, errors.New("-duration: use 1s to 20s")
	}
	return s, nil
}

// run measures and prints the table. It prints the rows that it has, even after an error.
func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	e, err := prepare(ctx, s)
	if err != nil {
		return err
	}
	defer e.close()
	var rows []row
	var failures []error
	for _, m := range measurements {
		if !slices.Contains(s.only, m.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s …\n", m.name, m.what)
		started := time.Now()
		found, err := measure(ctx, e, m)
		fmt.Fprintf(os.Stderr, "%s took %.0f s\n", m.name, time.Since(started).Seconds())
		rows = append(rows, found...)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	if len(rows) > 0 {
		fmt.Printf("%s\n\n%s", machine(), table(rows))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return errors.Join(failures...)
}

func measure(ctx context.Context, parent *env, m measurement) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, measurementLimit)
	defer cancel()
	e := parent.child()
	defer e.close()
	return m.run(ctx, e)
}
