package handlers

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Meter counts requests. It is called during each of them, so it must be quick. Its strings are safe as
// labels: none is chosen by a client, each is a route or a constant.
type Meter interface {
	// Request counts an HTTP request. route is its pattern, such as /push/:user. If stream is true, took says
	// nothing: a stream is as long as its client likes.
	Request(method, route string, status int, took time.Duration, stream bool)
	// Refused counts a refused handshake of a socket, with the code of the problem.
	Refused(code string)
}

// Labels for what clients may choose freely.
const (
	noRoute     = "none"  // of a path that no route matches
	otherMethod = "other" // that the route does not take
)

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
		stream := route == "/push" && isStream(c.Request())
		s.options.Meter.Request(method, route, status, time.Since(began), stream)
		return err
	}
}

// noteRefusal counts refused handshakes, and logs refused credentials.
func (s *Server) noteRefusal(c echo.Context, p *Problem) {
	r := c.Request()
	if c.Path() == socketRoute {
		s.options.Meter.Refused(p.Code)
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
