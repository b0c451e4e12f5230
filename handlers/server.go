package handlers

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// Options are what a Server needs. Each is required unless its comment says otherwise.
type Options struct {
	Context  context.Context // of the handlers of clients' events; it ends when the server is gone
	Instance string          // the id of this instance
	Mirror   Mirror
	Presence presenceReader // *presence.Directory
	Router   Router
	Receiver Receiver
	Results  Results            // *idempotency.Store
	Handlers map[string]Handler // by the name of the event that they answer
	Tokens   *Tokens
	APIKeys  []string // each of them is good
	Static   fs.FS    // the page and its files
	Log      *slog.Logger

	AllowAnonymous  bool     // sockets without a token
	AllowedOrigins  []string // whose pages may connect, besides those of our own host; optional
	AllowedHosts    []string // in the Host header, besides localhost; empty: any, in dev mode only localhost
	MaxMessageBytes int      // of a frame, of the body of a push, and of its data
	MaxSockets      int      // of this instance; 0: no cap
	ClientRate      int      // frames a second from one socket; 0: no cap
	Dev             *Dev     // nil: this is not dev mode

	Metrics http.Handler // answers GET /metrics
	Meter   Meter        // optional
}

// Mirror tells other instances which sockets are here: *presence.Mirror.
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

// Receiver takes what other instances send to this one: *fanout.Receiver.
type Receiver interface {
	barrier
	readiness
}

// Server answers HTTP and serves sockets. It is an http.Handler.
type Server struct {
	// static after construction
	options    Options
	echo       *echo.Echo
	sockets    *sockets
	routes     routes
	streamsEnd context.Context // ends when streams must take no more lines
	endStreams func()

	kicks, refusedKeys, refusedTokens *sparseLog

	draining atomic.Bool
	streams  atomic.Int64 // open ones, at most maxStreams
}

// NewServer makes a server.
func NewServer(o Options) *Server {
	s := &Server{
		options: o, echo: newEcho(answerProblem(o.Log)),
		kicks: newSparseLog(o.Log), refusedKeys: newSparseLog(o.Log), refusedTokens: newSparseLog(o.Log),
	}
	s.streamsEnd, s.endStreams = context.WithCancel(o.Context)
	s.sockets = newSockets(o, &gateway{o.Handlers, o.Router, o.Log, o.meter()}, s.draining.Load)
	s.addRoutes()
	s.routes = routesOf(s.echo)
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// The following are for metrics.

// TooSlow counts sockets that were closed because their client did not read.
func (s *Server) TooSlow() int64 { return s.sockets.slow.Load() }

// Full counts handshakes that were refused because MaxSockets were open.
func (s *Server) Full() int64 { return s.sockets.full.Load() }

// RateLimited counts frames that were not handled because of ClientRate.
func (s *Server) RateLimited() int64 { return s.sockets.rateLimited.Load() }

// Floods counts sockets that were closed because their client went on sending too many frames.
func (s *Server) Floods() int64 { return s.sockets.floods.Load() }

// Unfinished counts sockets that were closed because a message was not complete in time, or because others
// needed the memory that it took.
func (s *Server) Unfinished() int64 { return s.sockets.unfinishedCut.Load() }

// Sockets is how many sockets there are now, including those whose handshake is under way.
func (s *Server) Sockets() int { return s.sockets.number() }

// Streams is how many streams of pushes are open now.
func (s *Server) Streams() int64 { return s.streams.Load() }
