package handlers

import (
	"errors"
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"rollcall/handlers/sockets"
)

// connect answers GET /ws: it makes the request a socket, or says why not.
func (s *Server) connect(c echo.Context) error {
	r := c.Request()
	showRefusal(c.Response().Header(), r.Header.Get("Origin"))
	if s.draining.Load() {
		return errDraining
	}
	if !originAllowed(r, s.options.AllowedOrigins) {
		return problem(http.StatusForbidden, "bad_origin",
			"Origin: pages of %q may not connect here; its operator can allow it with --allowed-origins",
			r.Header.Get("Origin"))
	}
	if err := checkQuery(c, "token..."); err != nil { // with a misspelt token, the socket would be anonymous
		return err
	}
	user, err := s.authenticate(r)
	if err != nil {
		return err
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
	case errors.As(err, &refused) && refused.Status == 0: // the connection is gone: nobody gets an answer
		c.Response().Committed = true
		c.Response().Status = http.StatusBadRequest
		s.options.Meter.Refused(codeBadHandshake)
		return nil
	}
	return err
}

// showRefusal lets pages of any origin read the answer to a request. A page can't see why its WebSocket was
// refused, but it can ask again with fetch. That tells nobody a secret: nothing here depends on cookies, and
// requests with credentials stay forbidden.
func showRefusal(header http.Header, origin string) {
	if origin == "" {
		return
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "Retry-After")
	header.Set("Vary", "Origin")
}

// authenticate returns the user of a token; empty if there is no token and none is needed.
func (s *Server) authenticate(r *http.Request) (user string, err error) {
	token, err := tokenFrom(r)
	switch {
	case err != nil:
		return "", err
	case token != "":
		return s.options.Tokens.User(r.Context(), token)
	case s.options.AllowAnonymous:
		return "", nil
	}
	return "", problem(http.StatusUnauthorized, "no_token",
		"this server wants a token, in ?token= or in the Authorization header")
}
