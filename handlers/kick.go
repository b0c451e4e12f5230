package handlers

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"rollcall/fanout"
)

// maxReasonBytes is what fits into a close frame besides its code.
const maxReasonBytes = 123

// kicker closes sockets on all instances.
type kicker interface {
	Kick(ctx context.Context, user string, except uuid.UUID, reason string) fanout.Outcome
	KickSocket(ctx context.Context, id uuid.UUID, reason string) (fanout.Outcome, error)
}

// kickAnswer is what became of a kick.
type kickAnswer struct {
	Closed     int  `json:"closed"`               // sockets
	Unanswered int  `json:"unanswered,omitempty"` // instances or sockets that did not report in time
	Partial    bool `json:"partial,omitempty"`    // only this instance did it: Redis is out of reach
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
	whom := slog.String("user", user)
	return s.kick(c, whom, func(ctx context.Context, reason string) (fanout.Outcome, error) {
		outcome := s.options.Bus.Kick(ctx, user, except, reason)
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
		return s.options.Bus.KickSocket(ctx, id, reason)
	})
}

// kick answers both routes. closeSockets closes the sockets with the reason; whom is for the log.
func (s *Server) kick(
	c echo.Context, whom slog.Attr,
	closeSockets func(ctx context.Context, reason string) (fanout.Outcome, error),
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
	answer := kickAnswer{outcome.Sockets.Written, outcome.Sockets.Unanswered, outcome.Partial}
	s.kicks.info("kicked", whom, "route", c.Path(), "closed", answer.Closed,
		"unanswered", answer.Unanswered, "partial", answer.Partial, "peer", c.Request().RemoteAddr)
	return c.JSON(http.StatusOK, answer)
}

// socketID parses the id of a socket; uuid.Nil if the text is empty. where says, in errors, where it was
// given.
func socketID(where, text string) (uuid.UUID, error) {
	if text == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) { // Parse also takes urn:uuid:… and {…}
		return uuid.Nil, problem(http.StatusBadRequest, "bad_socket",
			"%s: want the id of a socket, as in its rollcall:welcome, not %q", where, text)
	}
	return id, nil
}

func reasonFrom(c echo.Context) (string, error) {
	reason := c.QueryParam("reason")
	if len(reason) > maxReasonBytes || !utf8.ValidString(reason) {
		return "", problem(http.StatusBadRequest, "bad_reason",
			"reason: want at most %d bytes of UTF-8", maxReasonBytes)
	}
	return cmp.Or(reason, "kicked"), nil
}
