package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/handlers"
	"rollcall/presence"
	"rollcall/static"
)

// App is one running instance: all of the wiring.
type App struct {
	// static after Start
	Instance  string // its id
	Addr      string // where it listens
	PprofAddr string // where profiles are; empty: nowhere
	RedisURL  string // where another instance can join; of the in-process Redis if there is one
	Dev       *handlers.Dev

	base     context.Context // of all that runs until Close
	config   *Config
	events   map[string]handlers.Handler
	log      *slog.Logger
	redis    *redisServer
	receiver *fanout.Receiver
	mirror   *presence.Mirror
	server   *handlers.Server
	http     *http.Server
	gate     *gate

	stopHandling func()
	router       part
	mirroring    part
	receiving    part
	serving      part
	pinging      part
	profiling    part
	verifying    part
	failed       chan error // capacity 1: the HTTP server ended by itself
}

// Start starts an instance that answers clients' events with these handlers. When it returns, the instance serves, can be found by
// others, and hears them. The context is for starting only; Close stops.
func Start(ctx context.Context, c *Config, events map[string]handlers.Handler, log *slog.Logger) (*App, error) {
	a := &App{
		base:     context.WithoutCancel(ctx),
		Instance: uuid.NewString()[:8], // unlike any other now running: Redis would show them as one
		config:   c, events: events, log: log, failed: make(chan error, 1),
	}
	if err := a.start(ctx); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

func (a *App) start(ctx context.Context) error {
	listener, err := net.Listen("tcp", a.config.Addr)
	if err != nil {
		return fmt.Errorf("--addr (ROLLCALL_ADDR): %w", err)
	}
	a.Addr = listener.Addr().String()
	a.serving.stop = func() { listener.Close() } // until the server has it
	// first of all that is logged
	a.log.Info("listening", "addr", a.Addr, "instance", a.Instance)

	if a.config.dev() {
		a.log.Warn("development mode: who can reach this address can get a token for any user; it is not for production")
	}
	tokens, published, err := newTokens(a.config, a.log)
	if err != nil {
		return err
	}
	if published != nil {
		a.verifying = begin(ctx, published.run)
	}
	if a.redis, err = openRedis(ctx, a.config, a.log); err != nil {
		return err
	}
	a.RedisURL = a.redis.url

	redis := a.redis.presence()
	mirror, sockets := presence.NewMirror(presence.MirrorOptions{Instance: a.Instance, Addr: a.Addr, Redis: redis, Log: a.log})
	a.mirror = mirror
	a.receiver = fanout.NewReceiver(fanout.ReceiverOptions{
		Instance: a.Instance, Redis: redis, Sockets: sockets, Mirror: mirror, Dial: a.redis.subscriber, Log: a.log,
	})
	meter := newMetrics()
	router := fanout.NewRouter(fanout.RouterOptions{Instance: a.Instance, Redis: redis, Sockets: sockets, Receiver: a.receiver, Meter: meter, Log: a.log})
	results := idempotency.NewStore(idempotency.Options{Redis: redis, LiveInstances: mirror.LiveInstances, Log: a.log})
	handling, stopHandling := context.WithCancel(a.base)
	a.stopHandling = stopHandling
	if a.config.dev() {
		a.Dev = &handlers.Dev{Secret: a.config.JWTSecret[0], Issuer: a.config.JWTIssuer, Audience: a.config.JWTAudience}
		if a.config.madeKey || a.config.DevServeKey {
			a.Dev.APIKey = a.config.APIKeys[0]
		}
	}
	a.server = handlers.NewServer(handlers.Options{
		Context: handling, Instance: a.Instance, Mirror: mirror, Presence: mirror.Directory(), Router: router, Receiver: a.receiver,
		Results:  results,
		Handlers: a.events, Tokens: tokens, APIKeys: a.config.APIKeys, Static: static.Files, Log: a.log,
		AllowAnonymous: a.config.AllowAnonymous, AllowedOrigins: a.config.AllowedOrigins, AllowedHosts: a.config.AllowedHosts,
		MaxMessageBytes: a.config.MaxMessageBytes, MaxSockets: a.config.maxSockets(), ClientRate: a.config.ClientRate,
		Dev: a.Dev, Metrics: meter.handler(), Meter: meter,
	})
	a.gate = newGate(listener, mostConnections(fileLimit()), a.server.Sockets, a.log)
	meter.watch(mirror, a.config.Lease, sockets, router, a.receiver, results, a.server)
	meter.watchLimits(a.server, a.gate)

	// Others may push here from the moment the lease is open, so we listen before that, and serve after.
	a.receiving = begin(ctx, a.receiver.Run)
	if err := a.hear(ctx); err != nil {
		return err
	}
	if err := mirror.Open(ctx); err != nil {
		return cmp.Or(a.redis.objection(err), err)
	}
	a.mirroring = begin(ctx, mirror.Run)
	a.router = begin(ctx, router.Run)
	if err := a.servePprof(ctx); err != nil {
		return err
	}
	a.pinging = begin(ctx, a.server.Run)
	a.serve()
	return nil
}

// hear waits until the subscriptions are there.
func (a *App) hear(ctx context.Context) error {
	select {
	case <-a.receiver.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(startTimeout):
		return errors.New("redis did not confirm the subscriptions in time")
	}
}

const (
	startTimeout = 10 * time.Second
	// an HTTP request must arrive and be answered in this time; sockets are not bound by it
	requestTimeout = 30 * time.Second
	// the head of a request; net/http makes more than ten times as much of one that has very many lines
	maxHeadBytes = 16 << 10
)

func (a *App) serve() {
	a.http = &http.Server{
		Handler: a.server, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // what clients do wrong
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeadBytes - 4<<10, // net/http takes 4 KiB more
		ConnState:      a.gate.observe, ConnContext: a.gate.context,
	}
	a.http.RegisterOnShutdown(a.server.EndStreams)
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.http.Serve(a.gate); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	})
	a.serving = part{done: &done, stop: a.stopServing}
}

func (a *App) stopServing() {
	ctx, cancel := context.WithTimeout(a.base, fanout.MaxWait+time.Second) // the longest that a push in hand may take
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		a.http.Close()
	}
}

// Failed tells if the instance can't go on.
func (a *App) Failed() <-chan error { return a.failed }

// Close stops politely: readiness goes, sockets are closed in batches and told to come back, the leases end, and every goroutine is waited for.
func (a *App) Close() {
	a.log.Info("draining", "over", a.config.Drain.String())
	ctx, cancel := context.WithTimeout(a.base, a.config.Drain)
	defer cancel()
	defer context.AfterFunc(ctx, a.stopHandling)() // or a handler could hold it up
	a.server.Drain(ctx, a.config.Drain/2)
	a.stop()
	a.log.Info("stopped")
}

// stop stops what was started, in the order in which nothing still running misses what is gone.
func (a *App) stop() {
	a.serving.end()
	a.pinging.end()
	a.profiling.end()
	a.verifying.end()
	if a.stopHandling != nil {
		a.stopHandling()
	}
	a.router.end()
	a.mirroring.end() // ends the leases: from here on nobody sends us anything
	a.receiving.end()
	if a.redis != nil {
		a.redis.close()
	}
}

// part is something that runs until it is told to stop.
type part struct {
	stop func()
	done *sync.WaitGroup
}

// begin runs a part. It outlives the context, which is for starting.
func begin(ctx context.Context, run func(context.Context)) part {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { run(ctx) })
	return part{stop: cancel, done: &done}
}

// end stops a part, if it was begun, and waits for it.
func (p part) end() {
	if p.stop != nil {
		p.stop()
	}
	if p.done != nil {
		p.done.Wait()
	}
}
