package handlers

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v5"

	"rollcall/fanout"
	"rollcall/presence"
)

// Options are what a Server needs. All are required unless it says otherwise.
type Options struct {
	Context  context.Context // what clients' messages are handled under; it ends when the server is gone
	Instance string
	Mirror   *presence.Mirror
	Sockets  *presence.Sockets
	Router   *fanout.Router
	Receiver *fanout.Receiver
	Handlers map[string]Handler
	Tokens   *Tokens
	APIKeys  []string
	Static   fs.FS
	Log      *slog.Logger

	AllowAnonymous  bool
	AllowedOrigins  []string // besides our own host; may be empty
	MaxMessageBytes int      // of a frame, or of the body of a push
	Dev             *Dev     // nil outside dev mode

	Metrics http.Handler // of /metrics
}

// Server answers HTTP and serves sockets.
type Server struct {
	// static after construction
	options   Options
	echo      *echo.Echo
	sockets   *sockets
	directory *presence.Directory

	leaving context.Context // ends when streams are to end
	leave   func()

	draining atomic.Bool
	streams  atomic.Int64 // open ones, at most maxStreams
}

// NewServer makes a server.
func NewServer(o Options) *Server {
	s := &Server{options: o, directory: o.Mirror.Directory()}
	s.leaving, s.leave = context.WithCancel(context.Background())
	s.sockets = newSockets(o, &gateway{o.Handlers, o.Router, o.Log}, s.draining.Load)
	s.echo = echo.NewWithConfig(echo.Config{
		Logger:           o.Log,
		HTTPErrorHandler: answerProblem(o.Log),
		// a user id in a path is percent-encoded, so that it may hold a slash
		Router: echo.NewRouter(echo.RouterConfig{UnescapePathParamValues: true}),
	})
	s.routes()
	return s
}

func (s *Server) routes() {
	e := s.echo
	e.Use(recoverPanics)
	e.GET("/ws", s.connect)
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)
	s.serveStatic()
	if s.options.Dev != nil {
		dev := e.Group("/dev", onlyLoopbackHosts)
		dev.GET("/token", s.options.Dev.token)
		dev.GET("/key", s.options.Dev.key)
	}

	key := requireKey(s.options.APIKeys)
	e.POST("/push", s.pushMany, key, s.once)
	e.POST("/push/:user", s.push, key, s.once)
	e.POST("/push/", s.push, key) // the empty user id, to be told what is wrong with it
	e.POST("/emit/all", s.emit(presence.Everybody), key, s.once)
	e.POST("/emit/authenticated", s.emit(presence.Authenticated), key, s.once)
	e.GET("/presence", s.presence, key)
	e.GET("/presence/count", s.count, key)
	e.GET("/presence/:user", s.user, key)
	e.GET("/presence/", s.user, key)
	e.DELETE("/presence/:user", s.kickUser, key)
	e.DELETE("/sockets/:id", s.kickSocket, key)
	e.GET("/instances", s.instances, key)
	e.GET("/audit", s.audit, key)
	e.GET("/metrics", echo.WrapHandler(s.options.Metrics), key)
}

// ServeHTTP makes a Server an http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Run keeps the connections of sockets alive until the context ends.
func (s *Server) Run(ctx context.Context) { s.sockets.ping(ctx) }

// TooSlow counts the sockets that were closed because their client did not read.
func (s *Server) TooSlow() int64 { return s.sockets.slow.Load() }

// Streams is how many streams of pushes are open.
func (s *Server) Streams() int64 { return s.streams.Load() }

// Drain says that this instance is not ready, refuses new sockets, and closes the open ones over a time, each told when to come back.
// It returns when all are gone; those that do not go are cut when the context ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	s.options.Mirror.Drain()
	s.sockets.drain(ctx, over)
}

// EndStreams has streams take no more lines: what was taken is answered, and the last answer says why there are no others.
func (s *Server) EndStreams() { s.leave() }

// connect opens a socket.
func (s *Server) connect(c *echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return problem(http.StatusServiceUnavailable, "draining", "this instance is shutting down; connect again, and another will answer")
	}
	if !originAllowed(r, s.options.AllowedOrigins) {
		return problem(http.StatusForbidden, "bad_origin", "Origin: pages of %q may not connect here; its operator can allow it with --allowed-origins",
			r.Header.Get("Origin"))
	}
	token, err := tokenFrom(r)
	if err != nil {
		return err
	}
	user := ""
	if token != "" {
		if user, err = s.options.Tokens.User(token); err != nil {
			return err
		}
	} else if !s.options.AllowAnonymous {
		return problem(http.StatusUnauthorized, "no_token", "this server wants a token, in ?token= or in the Authorization header")
	}
	if !websocket.IsWebSocketUpgrade(r) {
		c.Response().Header().Set("Upgrade", "websocket")
		return problem(http.StatusUpgradeRequired, "upgrade_required", "all is well, but this path speaks WebSocket: connect with a WebSocket client")
	}
	response, err := echo.UnwrapResponse(c.Response())
	if err != nil {
		return err
	}
	s.sockets.serve(response.ResponseWriter, r, user)
	response.Committed = true // whatever the answer was, it has been given
	return nil
}

// serveStatic serves the page and its files, each at its own path. They may load nothing from elsewhere, and nobody may frame them.
func (s *Server) serveStatic() {
	files, err := fs.ReadDir(s.options.Static, ".")
	if err != nil {
		panic("handlers: the embedded files: " + err.Error())
	}
	serve := func(name string) echo.HandlerFunc {
		return func(c *echo.Context) error {
			header := c.Response().Header()
			header.Set("Content-Security-Policy", pagePolicy)
			header.Set("X-Content-Type-Options", "nosniff")
			header.Set("Referrer-Policy", "no-referrer")
			header.Set("Cache-Control", "no-cache")
			http.ServeFileFS(c.Response(), c.Request(), s.options.Static, name)
			return nil
		}
	}
	s.echo.GET("/", serve("index.html"))
	for _, file := range files {
		s.echo.GET("/"+file.Name(), serve(file.Name()))
	}
}

const pagePolicy = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
