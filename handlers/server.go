package handlers

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// Options are what a Server needs. All are required unless it says otherwise.
type Options struct {
	Context  context.Context // what clients' messages are handled under; it ends when the server is gone
	Instance string
	Mirror   Mirror
	Presence presenceReader // *presence.Directory
	Router   Router
	Receiver Receiver
	Results  Results // *idempotency.Store
	Handlers map[string]Handler
	Tokens   *Tokens
	APIKeys  []string
	Static   fs.FS
	Log      *slog.Logger

	AllowAnonymous  bool
	AllowedOrigins  []string // besides our own host; may be empty
	AllowedHosts    []string // that requests may name, besides this machine; empty: any, but in dev mode none
	MaxMessageBytes int      // of a frame, or of the body of a push
	MaxSockets      int      // of this instance; 0: no cap
	ClientRate      int      // frames a second of one socket; 0: no cap
	Dev             *Dev     // nil outside dev mode

	Metrics http.Handler // of /metrics
	Meter   Meter        // nil: nobody counts
}

// Mirror says which sockets are here: *presence.Mirror.
type Mirror interface {
	membership
	readiness
}

// Router sends to sockets on all instances: *fanout.Router.
type Router interface {
	pusher
	kicker
	auditor
}

// Receiver takes what other instances send here: *fanout.Receiver.
type Receiver interface {
	barrier
	readiness
}

// Server answers HTTP and serves sockets.
type Server struct {
	// static after construction
	options Options
	echo    *echo.Echo
	sockets *sockets
	known   routes
	leaving context.Context // ended by leave: streams are to end
	leave   func()

	kicks, refusedKeys, refusedTokens *sparseLog

	draining atomic.Bool
	streams  atomic.Int64 // open ones, at most maxStreams
}

// NewServer makes a server.
func NewServer(o Options) *Server {
	s := &Server{
		options: o, kicks: newSparseLog(o.Log), refusedKeys: newSparseLog(o.Log), refusedTokens: newSparseLog(o.Log),
	}
	s.leaving, s.leave = context.WithCancel(o.Context)
	s.sockets = newSockets(o, &gateway{o.Handlers, o.Router, o.Log, o.meter()}, s.draining.Load)
	s.echo = newEcho(answerProblem(o.Log))
	s.routes()
	s.known = routesOf(s.echo)
	return s
}

// ServeHTTP makes a Server an http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Run keeps the connections of sockets alive until the context ends.
func (s *Server) Run(ctx context.Context) { s.sockets.ping(ctx) }

// TooSlow counts the sockets that were closed because their client did not read.
func (s *Server) TooSlow() int64 { return s.sockets.slow.Load() }

// Full counts the handshakes that were refused because there were as many sockets as may be.
func (s *Server) Full() int64 { return s.sockets.full.Load() }

// RateLimited counts the frames that were not handled because their client sends too many.
func (s *Server) RateLimited() int64 { return s.sockets.rateLimited.Load() }

// Floods counts the sockets that were closed because their client went on sending too many frames.
func (s *Server) Floods() int64 { return s.sockets.floods.Load() }

// Unfinished counts the sockets that were closed because a message was not finished in time, or because others needed its room.
func (s *Server) Unfinished() int64 { return s.sockets.unfinishedCut.Load() }

// Sockets is how many sockets there are, with those whose handshake is under way.
func (s *Server) Sockets() int { return s.sockets.number() }

// Streams is how many streams of pushes are open.
func (s *Server) Streams() int64 { return s.streams.Load() }
