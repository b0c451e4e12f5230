package handlers

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// Options are what a Server needs. Each is required unless its comment says otherwise.
type Options struct {
	Instance  string // the id of this instance
	Mirror    Mirror
	Directory Directory
	Bus       Bus
	Results   Results // *idempotency.Store
	Sockets   Sockets
	Tokens    *Tokens
	APIKeys   []string // each of them is good
	Static    fs.FS    // the page and its files
	Log       *slog.Logger

	AllowAnonymous  bool     // sockets without a token
	AllowedOrigins  []string // whose pages may connect, besides those of our own host; optional
	AllowedHosts    []string // in the Host header, besides localhost; empty: any, in dev mode only localhost
	MaxMessageBytes int      // of the body of a push, and of its data
	Dev             *Dev     // nil: this is not dev mode

	Metrics http.Handler // answers GET /metrics
	Meter   Meter
}

// Mirror tells other instances which sockets are here: *presence.Mirror.
type Mirror interface {
	Drain(ctx context.Context)
	readiness
}

// Sockets serves WebSockets: *sockets.Server.
type Sockets interface {
	// Serve makes a request a socket of a user; empty: anonymous. If it returns an error, nothing is answered
	// yet, except that the connection is gone if the error is a *sockets.HandshakeError without a status.
	Serve(w http.ResponseWriter, r *http.Request, user string) error
	Drain(ctx context.Context, over time.Duration)
}

// Bus sends to sockets on all instances: *fanout.Bus.
type Bus interface {
	pusher
	kicker
	auditor
	readiness
}

// Server answers HTTP. It is an http.Handler.
type Server struct {
	// static after construction
	options    Options
	echo       *echo.Echo
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
	s.streamsEnd, s.endStreams = context.WithCancel(context.Background())
	s.addRoutes()
	s.routes = routesOf(s.echo)
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Drain makes this instance not ready, refuses new sockets, and closes the open ones, evenly spread over a
// time. Each client is told when to come back. Drain returns when all sockets are gone. Those that do not go
// are cut when the context ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	telling, cancel := context.WithTimeout(ctx, drainNotice)
	defer cancel()
	s.options.Mirror.Drain(telling)
	s.options.Sockets.Drain(ctx, over)
}

// drainNotice is how long Drain waits at most until Redis shows that this instance takes no more sockets.
const drainNotice = time.Second

// EndStreams lets streams take no more lines. The lines they have taken are answered, and the last line says
// "draining".
func (s *Server) EndStreams() { s.endStreams() }

// Streams is how many streams of pushes are open now, for metrics.
func (s *Server) Streams() int64 { return s.streams.Load() }
