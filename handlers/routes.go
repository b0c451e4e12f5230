package handlers

import (
	"github.com/labstack/echo/v4"

	"rollcall/presence"
)

const socketRoute = "/ws"

// addRoutes says which handler answers which route, and what each takes in its query. docs/api.md describes
// them.
func (s *Server) addRoutes() {
	e := s.echo
	e.Use(s.observe, recoverPanics, wantReadableQuery)
	if s.options.Dev != nil || len(s.options.AllowedHosts) > 0 {
		e.Use(onlyHosts(s.options.AllowedHosts))
	}
	e.GET(socketRoute, s.connect)
	s.get("/healthz", s.healthz)
	s.get("/readyz", s.readyz)
	s.serveStatic()
	if s.options.Dev != nil {
		dev := e.Group("/dev", onlyLocal)
		dev.GET("/token", s.options.Dev.token)
		dev.GET("/key", s.options.Dev.key)
	}

	key := requireKey(s.options.APIKeys)
	waits := onlyQuery("wait", "timeout")
	e.POST("/push", s.pushMany, key, onlyQuery("wait", "timeout", "answers"), s.idempotent)
	e.POST("/push/:user", s.push, key, waits, s.idempotent)
	e.POST("/push/", s.push, key) // the user id is empty: this is how the caller gets to know
	e.POST("/emit/all", s.emit(presence.Everybody), key, waits, s.idempotent)
	e.POST("/emit/authenticated", s.emit(presence.Authenticated), key, waits, s.idempotent)
	s.get("/presence", s.listPresence, key, onlyQuery("limit", "cursor", "user..."))
	e.POST("/presence", s.lookupPresence, key, onlyQuery())
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
