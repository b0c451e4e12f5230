package handlers

import (
	"errors"
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"rollcall/handlers/sockets"
)

// connect opens a socket.
func (s *Server) connect(c echo.Context) error {
	r := c.Request()
	if origin := r.Header.Get("Origin"); origin != "" {
		// A page can't see why its WebSocket was refused. It can ask again with fetch, and every origin may read that
		// answer, also one that may not connect. Nothing here depends on cookies, and credentials stay forbidden.
		c.Response().Header().Set("Access-Control-Allow-Origin", origin)
		c.Response().Header().Set("Access-Control-Expose-Headers", "Retry-After")
		c.Response().Header().Set("Vary", "Origin")
	}
	if s.draining.Load() {
		return errDraining
	}
	if !originAllowed(r, s.options.AllowedOrigins) {
		return problem(http.StatusForbidden, "bad_origin",
			"Origin: pages of %q may not connect here; its operator can allow it with --allowed-origins",
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
		return problem(http.StatusUnauthorized, "no_token",
			"this server wants a token, in ?token= or in the Authorization header")
	}
	if !websocket.IsWebSocketUpgrade(r) {
		c.Response().Header().Set("Upgrade", "websocket")
		return problem(http.StatusUpgradeRequired, "upgrade_required",
			"all is well, but this path speaks WebSocket: connect with a WebSocket client")
	}
	err = s.options.Sockets.Serve(c.Response().Writer, r, user)
	refused := (*sockets.HandshakeError)(nil)
	switch {
	case err == nil:
		c.Response().Committed = true
		c.Response().Status = http.StatusSwitchingProtocols
	case errors.As(err, &refused) && refused.Status == 0: // nobody is there to be answered
		c.Response().Committed = true
		c.Response().Status = http.StatusBadRequest
		s.options.meter().Refused(codeBadHandshake)
		return nil
	}
	return err
}
