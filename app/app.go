package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"rollcall/app/redis"
	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/handlers"
	"rollcall/handlers/sockets"
	"rollcall/presence"
	"rollcall/static"
)

// App is one running instance: all of the wiring.
type App struct {
	// static after Start
	Instance  string // its id
	Addr      string // where it listens
	PprofAddr string // where profiles are; empty: nowhere
	RedisURL  string // where other instances find the same Redis, also if it is in this process
	Dev       *handlers.Dev

	base    context.Context // of all that runs until Close
	config  *Config
	events  map[string]sockets.Handler
	log     *slog.Logger
	meter   *metrics
	redis   *redis.Connection
	mirror  *presence.Mirror
	local   *presence.Sockets
	bus     *fanout.Bus
	results *idempotency.Store
	sockets *sockets.Server
	server  *handlers.Server
	failed  chan error // capacity 1: the HTTP server ended by itself

	closers      []func() // what stop calls, the last one first
	stopHandling func()   // ends the context of clients' events
}

// Start starts an instance that answers clients' events with these handlers. When it returns, the instance
// serves, others can find it, and it hears them. The context is for starting only; Close stops the instance.
func Start(
	ctx context.Context, c *Config, events map[string]sockets.Handler, log *slog.Logger,
) (*App, error) {
	a := &App{
		base:     context.WithoutCancel(ctx),
		Instance: uuid.NewString()[:8], // no other running instance may have it: Redis would show both as one
		config:   c, events: events, log: log, meter: newMetrics(), failed: make(chan error, 1),
	}
	if err := a.start(ctx); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

// start starts one part after the other. Each leaves a closer behind; stop calls them in the opposite order,
// so that no part that still runs misses one that is gone.
func (a *App) start(ctx context.Context) error {
	listener, err := a.listen()
	if err != nil {
		return err
	}
	tokens, err := a.startTokens()
	if err != nil {
		return err
	}
	if err := a.connectRedis(ctx); err != nil {
		return err
	}
	a.makeBus()
	if err := a.join(ctx); err != nil {
		return err
	}
	a.makeServer(tokens)
	if err := a.servePprof(); err != nil {
		return err
	}
	a.startJob(a.sockets.Run)
	a.serve(listener)
	return nil
}

func (a *App) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", a.config.Addr)
	if err != nil {
		return nil, fmt.Errorf("--addr (ROLLCALL_ADDR): %w", err)
	}
	a.onStop(func() { listener.Close() })
	a.Addr = listener.Addr().String()
	a.log.Info("listening", "addr", a.Addr, "instance", a.Instance) // the first line of the log
	if a.config.dev() {
		a.log.Warn("development mode: whoever can reach this address can get a token for any user; " +
			"it is not for production")
	}
	return listener, nil
}

// startTokens makes what verifies tokens, and fetches keys that are published.
func (a *App) startTokens() (*handlers.Tokens, error) {
	tokens, keySet, err := newTokens(a.config, a.log)
	if err == nil && keySet != nil {
		a.startJob(keySet.Run)
	}
	return tokens, err
}

// makeBus makes all that uses Redis.
func (a *App) makeBus() {
	shared := a.sharedRedis()
	a.mirror, a.local = presence.NewMirror(presence.MirrorOptions{
		Instance: a.Instance, Addr: a.Addr, Redis: shared, Log: a.log,
	})
	a.bus = fanout.NewBus(fanout.Options{
		Instance: a.Instance, Redis: shared, Sockets: a.local, Mirror: a.mirror, Dial: a.redis.Subscriber,
		Meter: a.meter, Log: a.log,
	})
	a.results = idempotency.NewStore(idempotency.Options{
		Redis: shared, LiveInstances: a.mirror.LiveInstances, Log: a.log,
	})
	a.meter.watchPresence(a.local, a.mirror, a.config.Lease)
	a.meter.watchFanout(a.bus, a.results)
}

// join makes this instance one that others can find. They may push here as soon as a lease is open, so it
// subscribes before that. It serves only after it, because nobody could push to its clients before.
func (a *App) join(ctx context.Context) error {
	a.startJob(a.bus.Listen)
	if err := awaitSubscriptions(ctx, a.bus); err != nil {
		return err
	}
	if err := a.mirror.Open(ctx); err != nil {
		return a.redis.Explain(err)
	}
	a.startJob(a.mirror.Run) // when it stops it ends the leases: from then on nobody sends us anything
	a.startJob(a.bus.Run)
	return nil
}

// makeServer makes what answers clients and backends. It also makes the context in which clients' events are
// handled, which ends when the instance stops.
func (a *App) makeServer(tokens *handlers.Tokens) {
	handling, stopHandling := context.WithCancel(a.base)
	a.stopHandling = stopHandling
	a.onStop(stopHandling)
	c := a.config
	a.Dev = c.devPage()
	a.sockets = sockets.New(sockets.Options{
		Context: handling, Instance: a.Instance, Mirror: a.mirror, Bus: a.bus,
		Handlers: a.events, Meter: a.meter, Log: a.log,
		MaxMessageBytes: c.MaxMessageBytes, MaxSockets: c.maxSockets(), ClientRate: c.ClientRate,
	})
	a.server = handlers.NewServer(handlers.Options{
		Instance: a.Instance, Mirror: a.mirror, Directory: a.mirror.Directory(), Bus: a.bus,
		Results: a.results, Sockets: a.sockets, Tokens: tokens, APIKeys: c.APIKeys, Dev: a.Dev,
		Static: static.Files, Metrics: a.meter.handler(), Meter: a.meter, Log: a.log,
		AllowAnonymous: c.AllowAnonymous, AllowedOrigins: c.AllowedOrigins, AllowedHosts: c.AllowedHosts,
		MaxMessageBytes: c.MaxMessageBytes,
	})
	a.meter.watchSockets(a.sockets)
	a.meter.watchServer(a.server)
}

// awaitSubscriptions waits until Redis has confirmed them.
func awaitSubscriptions(ctx context.Context, bus *fanout.Bus) error {
	select {
	case <-bus.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(startTimeout):
		return errors.New("redis did not confirm the subscriptions in time")
	}
}

const (
	startTimeout = 10 * time.Second
	// requestTimeout is how long an HTTP request may take to arrive and be answered. It is not for sockets.
	requestTimeout = 30 * time.Second
	// maxHeadBytes is how long the head of a request may be. If it has very many lines, net/http makes more
	// than ten times as much of it.
	maxHeadBytes = 16 << 10
)

// serve answers over the connections that the gate admits.
func (a *App) serve(listener net.Listener) {
	gate := newGate(listener, mostConnections(fileLimit()), a.sockets.Number, a.log)
	a.meter.watchGate(gate)
	server := &http.Server{
		Handler:           a.server,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // what clients do wrong
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeadBytes - 4<<10, // net/http allows 4 KiB more
		ConnState:         gate.observe,
		ConnContext:       gate.context,
	}
	server.RegisterOnShutdown(a.server.EndStreams)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(gate); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	})
	a.onStop(func() {
		// A push that is under way may take so long.
		ctx, cancel := context.WithTimeout(a.base, fanout.MaxWait+time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
		serving.Wait()
	})
}

// Failed tells why the instance can't go on.
func (a *App) Failed() <-chan error { return a.failed }

// Close stops the instance politely: it is no longer ready, its sockets are closed in batches and told to
// come back, its leases end. Close waits for every goroutine.
func (a *App) Close() {
	a.log.Info("draining", "over", a.config.Drain.String())
	ctx, cancel := context.WithTimeout(a.base, a.config.Drain)
	defer cancel()
	defer context.AfterFunc(ctx, a.stopHandling)() // a handler that takes longer would hold it up
	a.server.Drain(ctx, a.config.Drain/2)
	a.stop()
	a.log.Info("stopped")
}

// stop stops all parts that were started, the last one first.
func (a *App) stop() {
	for len(a.closers) > 0 {
		last := len(a.closers) - 1
		closer := a.closers[last]
		a.closers = a.closers[:last]
		closer()
	}
}

// onStop adds what stop is to call.
func (a *App) onStop(closer func()) { a.closers = append(a.closers, closer) }

// startJob runs a job until the instance stops.
func (a *App) startJob(job func(context.Context)) { a.onStop(startJob(a.base, job)) }

// startJob runs a job in a goroutine of its own. stop ends the job's context and waits until the job has
// returned.
func startJob(ctx context.Context, job func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { job(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}
