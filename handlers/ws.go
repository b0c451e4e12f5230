package handlers

import (
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"
)

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
