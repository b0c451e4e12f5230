package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"rollcall/fanout"
)

// maxReasonBytes is what a close frame has room for.
const maxReasonBytes = 123

// kicker closes sockets on all instances.
type kicker interface {
	Kick(ctx context.Context, user string, except uuid.UUID, reason string) fanout.Outcome
	KickSocket(ctx context.Context, id uuid.UUID, reason string) (fanout.Outcome, error)
}

// kickAnswer says how many sockets were closed.
type kickAnswer struct {
	Closed     int  `json:"closed"`
	Unanswered int  `json:"unanswered,omitempty"` // instances or sockets of which nothing was heard in time
	Partial    bool `json:"partial,omitempty"`    // only this instance's: Redis is out of reach
}

// kickUser answers DELETE /presence/:user.
func (s *Server) kickUser(c echo.Context) error {
	user, err := userParam(c)
	if err != nil {
		return err
	}
	except, err := socketID("except", c.QueryParam("except"))
	if err != nil {
		return err
	}
	return s.kick(c, slog.String("user", user), func(ctx context.Context, reason string) (fanout.Outcome, error) {
		outcome := s.options.Router.Kick(ctx, user, except, reason)
		return outcome, outcome.Err
	})
}

// kickSocket answers DELETE /sockets/:id.
func (s *Server) kickSocket(c echo.Context) error {
	id, err := socketID("the path", c.Param("id"))
	if err != nil {
		return err
	}
	whom := slog.String("socket", id.String())
	return s.kick(c, whom, func(ctx context.Context, reason string) (fanout.Outcome, error) {
		return s.options.Router.KickSocket(ctx, id, reason)
	})
}

// kick reads the reason, has sockets closed for it, and tells how many were. whom is for the log.
func (s *Server) kick(
	c echo.Context, whom slog.Attr, closeSockets func(ctx context.Context, reason string) (fanout.Outcome, error),
) error {
	reason, err := reasonFrom(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), defaultWait)
	defer cancel()
	outcome, err := closeSockets(ctx, reason)
	if err != nil {
		return err
	}
	s.kicks.info("kicked", whom, "route", c.Path(), "closed", outcome.Sockets.Written,
		"unanswered", outcome.Sockets.Unanswered, "partial", outcome.Partial, "peer", c.Request().RemoteAddr)
	return c.JSON(http.StatusOK, kickAnswer{outcome.Sockets.Written, outcome.Sockets.Unanswered, outcome.Partial})
}

// socketID reads a socket's id; uuid.Nil if there is none. where names the place it was given at.
func socketID(where, text string) (uuid.UUID, error) {
	if text == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) { // Parse takes other spellings too
		return uuid.Nil, problem(http.StatusBadRequest, "bad_socket", "%s: want the id of a socket, as its rollcall:welcome gave it, not %q", where, text)
	}
	return id, nil
}

func reasonFrom(c echo.Context) (string, error) {
	reason := c.QueryParam("reason")
	if len(reason) > maxReasonBytes || !utf8.ValidString(reason) {
		return "", problem(http.StatusBadRequest, "bad_reason", "reason: want at most %d bytes of UTF-8", maxReasonBytes)
	}
	if reason == "" {
		reason = "kicked"
	}
	return reason, nil
}
