package handlers

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Meter is told what happens between this instance and the outside. It is called on the way of each request,
// so it must be quick. No client and no backend can choose what these strings are: each comes from a set that
// is known when the instance starts, or from a constant of ours.
type Meter interface {
	// Request is told of each HTTP request, by the pattern of its route. A stream has no time: it is as long as
	// its client likes.
	Request(method, route string, status int, took time.Duration, stream bool)
	// Refused is told of each handshake of a socket that was refused, by the code of the problem.
	Refused(code string)
	// Opened is told of each socket, when it is connected.
	Opened()
	// Closed is told of each of these, when it is gone.
	Closed(by Closer, code int)
	// Handled is told of each event of a client: by the name under which its handler is registered, and what
	// came of it.
	Handled(handler, outcome string, took time.Duration)
}

// Closer is who closed a socket.
type Closer string

// Who closes a socket.
const (
	ByServer  Closer = "server"  // this side has sent the first close frame, or cut the connection
	ByClient  Closer = "client"  // the client has sent the first close frame
	ByNetwork Closer = "network" // the connection ended without one
)

// What a request's route, a handler, or a method is called that is none of ours.
const (
	noRoute      = "none"
	otherMethod  = "other"
	noSuchEvent  = "unknown"
	eventDone    = "ok"
	eventRefused = "refused" // the client's mistake, of which it was told
	eventFailed  = "failed"  // ours, or a panic
)

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Request(string, string, int, time.Duration, bool) {}
func (noMeter) Refused(string)                                   {}
func (noMeter) Opened()                                          {}
func (noMeter) Closed(Closer, int)                               {}
func (noMeter) Handled(string, string, time.Duration)            {}

// meter is what counts; never nil.
func (o *Options) meter() Meter {
	if o.Meter == nil {
		return noMeter{}
	}
	return o.Meter
}

const socketRoute = "/ws"

// routes knows the patterns of all routes, and which methods they take.
type routes map[string]map[string]bool

func routesOf(e *echo.Echo) routes {
	known := routes{}
	for _, route := range e.Routes() {
		if known[route.Path] == nil {
			known[route.Path] = map[string]bool{}
		}
		known[route.Path][route.Method] = true
	}
	return known
}

// labels are what a request is counted under. A client can choose neither.
func (r routes) labels(method, path string) (string, string) {
	methods, ok := r[path]
	switch {
	case !ok:
		return otherMethod, noRoute
	case !methods[method]:
		return otherMethod, path
	}
	return method, path
}

// noSniff is the value of X-Content-Type-Options.
var noSniff = []string{"nosniff"}

// observe counts each request, logs those that were refused for their credentials, and keeps browsers from
// guessing what an answer is.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	meter := s.options.meter()
	return func(c echo.Context) error {
		began := time.Now()
		c.Response().Header()["X-Content-Type-Options"] = noSniff
		err := next(c)
		status := c.Response().Status
		if err != nil && !c.Response().Committed {
			p := problemOf(err)
			status = p.Status
			s.refused(c, p)
		}
		method, route := s.known.labels(c.Request().Method, c.Path())
		meter.Request(method, route, status, time.Since(began), route == "/push" && isStream(c.Request()))
		return err
	}
}

// refused notes that a request was refused.
func (s *Server) refused(c echo.Context, p *Problem) {
	r := c.Request()
	if c.Path() == socketRoute {
		s.options.meter().Refused(p.Code)
		if p.Status == http.StatusUnauthorized {
			s.refusedTokens.warn("a token was refused", "reason", p.Detail, "peer", r.RemoteAddr)
		}
		return
	}
	if p.Status == http.StatusUnauthorized {
		_, route := s.known.labels(r.Method, c.Path())
		s.refusedKeys.warn("an API key was refused", "route", route, "reason", p.Detail, "peer", r.RemoteAddr)
	}
}
