// Command rollcall is one instance of Rollcall: it tells who is online, and reaches any user on whichever
// instance their sockets are.
//
// An [App] is all of the wiring. It connects to Redis, or starts one in this process; then it subscribes to
// what other instances send, opens its leases, and serves. It stops in the opposite order. All settings are
// in [Config].
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"rollcall/app/gctune"
	"rollcall/handlers/sockets"
)

func main() {
	var c commands
	parser := newParser(&c)
	command, err := parser.Parse(os.Args[1:])
	if refused := checkEnvironment(parser, os.Environ()); refused != nil {
		err = refused // it may be the cause of the other error
	}
	if err == nil {
		err = checkFlags(command)
	}
	if err == nil {
		err = checkAuditKey(command, os.Environ())
	}
	if err != nil {
		fail(parser, err)
	}
	if command.Command() == "audit" {
		if err := c.Audit.run(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "rollcall:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(&c.Config, newLog(c.LogLevel), os.Stdout); err != nil {
		fail(parser, err)
	}
}

// fail ends the process. The reason goes to the log, and in plain words to the terminal if there is one.
func fail(parser *kong.Kong, err error) {
	newLog("error").Error("rollcall can't run", "error", err)
	if info, statErr := os.Stderr.Stat(); statErr == nil && info.Mode()&os.ModeCharDevice != 0 {
		parser.FatalIfErrorf(err)
	}
	code := 1
	if usage := (*kong.ParseError)(nil); errors.As(err, &usage) {
		code = usage.ExitCode()
	}
	os.Exit(code)
}

// newLog logs JSON to the standard error. The parser has checked the level.
func newLog(level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level))
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// commands has the commands of the binary. Without one it serves.
type commands struct {
	Config
	Version kong.VersionFlag `env:"-" help:"Print which version this is, and with which Go it was built."`

	Serve struct{}     `cmd:"" default:"1" help:"Run an instance. This is what happens if no command is given."`
	Audit auditCommand `cmd:"" help:"Compare every instance's own map of sockets with Redis. Exit status 1 if they differ."`
}

// newParser reads settings from flags and the environment.
func newParser(c *commands) *kong.Kong {
	return kong.Must(c, kong.Name("rollcall"), kong.DefaultEnvars("ROLLCALL"), kong.ShortUsageOnError(),
		kong.Vars{"version": version()},
		kong.Description("Who is online, and reach this user now. With no settings at all it runs in "+
			"development mode, on a Redis of its own."))
}

// version is that of the module; if it was built from a checkout, that of the commit.
func version() string {
	built, ok := debug.ReadBuildInfo()
	if !ok {
		return "rollcall, of an unknown version"
	}
	return fmt.Sprintf("rollcall %s, %s", built.Main.Version, built.GoVersion)
}

// run runs an instance until the process is told to stop, or the instance can't go on.
func run(c *Config, log *slog.Logger, out io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.fillDev()
	a, err := Start(signals, c, sockets.Builtin(), log)
	if err != nil {
		return err
	}
	if a.Dev != nil {
		printDev(out, a)
	}
	defer startJob(context.WithoutCancel(signals), gctune.Run)() // for the whole process, not for one App
	select {
	case <-signals.Done():
		stop() // a second signal ends the process at once
		a.Close()
		return nil
	case err := <-a.Failed():
		a.Close()
		return err
	}
}
