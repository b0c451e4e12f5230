package handlers

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"rollcall/fanout"
	"rollcall/presence"
)

// Options are what a Server needs. All are required unless it says otherwise.
type Options struct {
	Context  context.Context // what clients' messages are handled under; it ends when the server is gone
	Instance string
	Mirror   *presence.Mirror
	Router   *fanout.Router
	Receiver *fanout.Receiver
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

// Server answers HTTP and serves sockets.
type Server struct {
	// static after construction
	options   Options
	echo      *echo.Echo
	sockets   *sockets
	directory *presence.Directory
	known     routes
	leaving   context.Context // ended by leave: streams are to end
	leave     func()

	kicks, refusedKeys, refusedTokens *sparseLog

	draining atomic.Bool
	streams  atomic.Int64 // open ones, at most maxStreams
}

// NewServer makes a server.
func NewServer(o Options) *Server {
	s := &Server{
		options: o, directory: o.Mirror.Directory(),
		kicks: newSparseLog(o.Log), refusedKeys: newSparseLog(o.Log), refusedTokens: newSparseLog(o.Log),
	}
	s.leaving, s.leave = context.WithCancel(o.Context)
	s.sockets = newSockets(o, &gateway{o.Handlers, o.Router, o.Log, o.meter()}, s.draining.Load)
	s.echo = newEcho(answerProblem(o.Log))
	s.routes()
	s.known = routesOf(s.echo)
	return s
}

func (s *Server) routes() {
	e := s.echo
	e.Use(s.observe, recoverPanics, wantQuery)
	if s.options.Dev != nil || len(s.options.AllowedHosts) > 0 {
		e.Use(onlyHosts(s.options.AllowedHosts))
	}
	e.GET(socketRoute, s.connect)
	s.get("/healthz", s.healthz)
	s.get("/readyz", s.readyz)
	s.serveStatic()
	if s.options.Dev != nil {
		dev := e.Group("/dev", onlyNear)
		dev.GET("/token", s.options.Dev.token)
		dev.GET("/key", s.options.Dev.key)
	}

	key := requireKey(s.options.APIKeys)
	waits := onlyQuery("wait", "timeout")
	e.POST("/push", s.pushMany, key, onlyQuery("wait", "timeout", "answers"), s.once)
	e.POST("/push/:user", s.push, key, waits, s.once)
	e.POST("/push/", s.push, key) // the empty user id, to be told what is wrong with it
	e.POST("/emit/all", s.emit(presence.Everybody), key, waits, s.once)
	e.POST("/emit/authenticated", s.emit(presence.Authenticated), key, waits, s.once)
	s.get("/presence", s.presence, key, onlyQuery("limit", "cursor", "user..."))
	e.POST("/presence", s.presenceOf, key, onlyQuery())
	s.get("/presence/count", s.count, key)
	s.get("/presence/:user", s.user, key)
	s.get("/presence/", s.user, key)
	e.DELETE("/presence/:user", s.kickUser, key, onlyQuery("except", "reason"))
	e.DELETE("/sockets/:id", s.kickSocket, key, onlyQuery("reason"))
	s.get("/instances", s.instances, key)
	s.get("/audit", s.audit, key)
	s.get("/metrics", echo.WrapHandler(s.options.Metrics), key)
}

// get answers GET, and HEAD, to which net/http sends no body.
func (s *Server) get(path string, handler echo.HandlerFunc, middleware ...echo.MiddlewareFunc) {
	s.echo.GET(path, handler, middleware...)
	s.echo.HEAD(path, handler, middleware...)
}

// onlyQuery refuses a query that has anything else than these, or one of them twice, unless its name ends in "..." here: a slip would
// reach other sockets than were meant, or tell of other users.
func onlyQuery(names ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := checkQuery(c, names...); err != nil {
				return err
			}
			return next(c)
		}
	}
}

func checkQuery(c echo.Context, names ...string) error {
	if c.Request().URL.RawQuery == "" {
		return nil
	}
	for name, values := range c.QueryParams() {
		once, many := slices.Contains(names, name), slices.Contains(names, name+"...")
		switch {
		case len(names) == 0:
			return problem(http.StatusBadRequest, "bad_query", "%.100s: this path and method take nothing in the query", name)
		case !once && !many:
			return problem(http.StatusBadRequest, "bad_query", "%.100s: nothing of that name is known here; there is %s",
				name, strings.ReplaceAll(strings.Join(names, ", "), "...", ""))
		case len(values) > 1 && !many:
			return problem(http.StatusBadRequest, "bad_query", "%s: given %d times; give one", name, len(values))
		}
	}
	return nil
}

// wantQuery refuses a query that can't be read: parts of it would be left out without a word.
func wantQuery(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if query := c.Request().URL.RawQuery; query != "" {
			if _, err := url.ParseQuery(query); err != nil {
				return problem(http.StatusBadRequest, "bad_query", "the query can't be read: %v; what is special in a value is percent-encoded", err)
			}
		}
		return next(c)
	}
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

// Drain says that this instance is not ready, refuses new sockets, and closes the open ones over a time, each told when to come back.
// It returns when all are gone; those that do not go are cut when the context ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	telling, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	s.options.Mirror.Drain(telling)
	s.sockets.drain(ctx, over)
}

// Readiness is what keeps an instance from being ready.
type Readiness struct {
	Draining bool
	Deaf     bool // it does not get what others send it
}

// Ready says whether this instance is ready.
func (r Readiness) Ready() bool { return !r.Draining && !r.Deaf }

// Readiness tells of readiness now, as GET /readyz does.
func (s *Server) Readiness() Readiness {
	return Readiness{Draining: s.draining.Load(), Deaf: s.options.Receiver.NotReadyReason() != ""}
}

// EndStreams has streams take no more lines: what was taken is answered, and the last answer says why there are no others.
func (s *Server) EndStreams() { s.leave() }

func errDraining() error {
	return problem(http.StatusServiceUnavailable, "draining", "this instance is shutting down; connect again, and another will answer")
}

// connect opens a socket.
func (s *Server) connect(c echo.Context) error {
	r := c.Request()
	if origin := r.Header.Get("Origin"); origin != "" {
		// A page sees of a refused WebSocket only that it failed. So that it can ask here for the reason, every origin
		// may read that, also one that may not connect. Nothing here depends on cookies, and credentials stay forbidden.
		c.Response().Header().Set("Access-Control-Allow-Origin", origin)
		c.Response().Header().Set("Access-Control-Expose-Headers", "Retry-After")
		c.Response().Header().Set("Vary", "Origin")
	}
	if s.draining.Load() {
		return errDraining()
	}
	if !originAllowed(r, s.options.AllowedOrigins) {
		return problem(http.StatusForbidden, "bad_origin", "Origin: pages of %q may not connect here; its operator can allow it with --allowed-origins",
			r.Header.Get("Origin"))
	}
	if err := checkQuery(c, "token..."); err != nil { // a misspelt token would make an anonymous socket
		return err
	}
	token, err := tokenFrom(r) // which wants only one
	if err != nil {
		return err
	}
	user := ""
	if token != "" {
		if user, err = s.options.Tokens.User(r.Context(), token); err != nil {
			return err
		}
	} else if !s.options.AllowAnonymous {
		return problem(http.StatusUnauthorized, "no_token", "this server wants a token, in ?token= or in the Authorization header")
	}
	if !websocket.IsWebSocketUpgrade(r) {
		c.Response().Header().Set("Upgrade", "websocket")
		return problem(http.StatusUpgradeRequired, "upgrade_required", "all is well, but this path speaks WebSocket: connect with a WebSocket client")
	}
	refused, err := s.sockets.serve(c.Response().Writer, r, user)
	if err != nil {
		return err
	}
	c.Response().Committed = true // whatever the answer was, it has been given
	c.Response().Status = http.StatusSwitchingProtocols
	if refused != 0 {
		c.Response().Status = refused
		s.options.meter().Refused(codeBadHandshake)
	}
	return nil
}

// serveStatic serves the page and its files, each at its own path. They may load nothing from elsewhere, and nobody may frame them.
func (s *Server) serveStatic() {
	files, err := fs.ReadDir(s.options.Static, ".")
	if err != nil {
		panic("handlers: the embedded files: " + err.Error())
	}
	serve := func(name string) echo.HandlerFunc {
		return func(c echo.Context) error {
			header := c.Response().Header()
			header.Set("Content-Security-Policy", pagePolicy)
			header.Set("Referrer-Policy", "no-referrer")
			header.Set("Cache-Control", "no-cache")
			header.Set("Access-Control-Allow-Origin", "*") // for pages elsewhere to import the client: the files are the same for all
			http.ServeFileFS(c.Response(), c.Request(), s.options.Static, name)
			return nil
		}
	}
	s.get("/", serve("index.html"))
	for _, file := range files {
		s.get("/"+file.Name(), serve(file.Name()))
	}
}

// pagePolicy lets the page connect to its own server alone: 'self' covers wss:// and ws:// of the same host and port.
const pagePolicy = "default-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
