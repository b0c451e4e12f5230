package handlers

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Meter counts requests, sockets and events. It is called during each of them, so it must be quick. Its
// strings are safe as labels: none is chosen by a client, each is a route, a handler's name, or a constant.
type Meter interface {
	// Request counts an HTTP request. route is its pattern, such as /push/:user. If stream is true, took says
	// nothing: a stream is as long as its client likes.
	Request(method, route string, status int, took time.Duration, stream bool)
	// Refused counts a refused handshake of a socket, with the code of the problem.
	Refused(code string)
	// Opened counts a connected socket.
	Opened()
	// Closed counts the end of a connected socket, with its close code.
	Closed(by Closer, code int)
	// Handled counts an event of a client, with the name of its handler and the outcome: ok, refused or
	// failed.
	Handled(handler, outcome string, took time.Duration)
}

// Closer is who closed a socket.
type Closer string

// Who closed a socket.
const (
	ByServer  Closer = "server"  // we sent the first close frame, or cut the connection
	ByClient  Closer = "client"  // the client sent the first close frame
	ByNetwork Closer = "network" // the connection ended without a close frame
)

// Labels for what clients may choose freely.
const (
	noRoute     = "none"    // of a path that no route matches
	otherMethod = "other"   // that the route does not take
	noSuchEvent = "unknown" // of an event without a handler
)

// Outcomes of an event.
const (
	eventDone    = "ok"
	eventRefused = "refused" // a mistake of the client, which was told so
	eventFailed  = "failed"  // our mistake, or a panic
)

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Request(string, string, int, time.Duration, bool) {}
func (noMeter) Refused(string)                                   {}
func (noMeter) Opened()                                          {}
func (noMeter) Closed(Closer, int)                               {}
func (noMeter) Handled(string, string, time.Duration)            {}

// meter is never nil.
func (o *Options) meter() Meter {
	if o.Meter == nil {
		return noMeter{}
	}
	return o.Meter
}

// routes are the patterns of all routes, each with the methods that it takes.
type routes map[string]map[string]bool

func routesOf(e *echo.Echo) routes {
	all := routes{}
	for _, route := range e.Routes() {
		if all[route.Path] == nil {
			all[route.Path] = map[string]bool{}
		}
		all[route.Path][route.Method] = true
	}
	return all
}

// labels returns the method and the route that a request is counted under.
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

// observe counts each request, logs refused credentials, and sets X-Content-Type-Options.
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
			s.noteRefusal(c, p)
		}
		method, route := s.routes.labels(c.Request().Method, c.Path())
		meter.Request(method, route, status, time.Since(began), route == "/push" && isStream(c.Request()))
		return err
	}
}

// noteRefusal counts refused handshakes, and logs refused credentials.
func (s *Server) noteRefusal(c echo.Context, p *Problem) {
	r := c.Request()
	if c.Path() == socketRoute {
		s.options.meter().Refused(p.Code)
		if p.Status == http.StatusUnauthorized {
			s.refusedTokens.warn("a token was refused", "reason", p.Detail, "peer", r.RemoteAddr)
		}
		return
	}
	if p.Status == http.StatusUnauthorized {
		_, route := s.routes.labels(r.Method, c.Path())
		s.refusedKeys.warn("an API key was refused", "route", route, "reason", p.Detail, "peer", r.RemoteAddr)
	}
}
