package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"rollcall/fanout"
	"rollcall/presence"
)

const (
	maxUsers  = 1000      // in one POST /push
	usersSize = 256 << 10 // bytes that their names may add to a body

	routeTime = 2 * time.Second // until a push that could not be sent is given up
)

// pushAnswer tells what became of a push.
type pushAnswer struct {
	ID        *uuid.UUID     `json:"id,omitempty"` // of a push to one user; many share one
	User      string         `json:"user"`
	State     presence.State `json:"state"`
	Instances int            `json:"instances"`         // that took it
	Partial   bool           `json:"partial,omitempty"` // only this one: Redis is out of reach
	Error     string         `json:"error,omitempty"`   // of one among many: why nobody took it
}

// push answers POST /push/:user.
func (s *Server) push(c *echo.Context) error {
	user := c.Param("user")
	if p := checkUser("the path", user); p != nil {
		return p
	}
	if err := s.refuseWait(c); err != nil {
		return err
	}
	var body pushBody
	if err := readBody(c, int64(s.options.MaxMessageBytes), &body); err != nil {
		return err
	}
	id := newID()
	push, err := s.pushOf(body, id)
	if err != nil {
		return err
	}
	push.User = user
	ctx, cancel := context.WithTimeout(c.Request().Context(), routeTime)
	defer cancel()
	outcome := s.options.Router.Push(ctx, push)
	if outcome.Err != nil {
		return outcome.Err
	}
	return c.JSON(http.StatusOK, pushAnswer{ID: &id, User: user, State: outcome.State, Instances: outcome.Instances, Partial: outcome.Partial})
}

// pushMany answers POST /push.
func (s *Server) pushMany(c *echo.Context) error {
	if err := s.refuseWait(c); err != nil {
		return err
	}
	var body pushManyBody
	if err := readBody(c, int64(s.options.MaxMessageBytes+usersSize), &body); err != nil {
		return err
	}
	if len(body.Users) == 0 || len(body.Users) > maxUsers {
		return problem(http.StatusBadRequest, "bad_users", "users: want 1 to %d user ids, not %d", maxUsers, len(body.Users))
	}
	id := newID()
	push, err := s.pushOf(body.pushBody, id)
	if err != nil {
		return err
	}
	pushes := make([]fanout.Push, len(body.Users))
	for i, user := range body.Users {
		if p := checkUser("users", user); p != nil {
			return p
		}
		push.User = user
		pushes[i] = push
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), routeTime)
	defer cancel()
	results := make([]pushAnswer, len(pushes))
	for i, outcome := range s.options.Router.PushMany(ctx, pushes) {
		results[i] = pushAnswer{User: pushes[i].User, State: outcome.State, Instances: outcome.Instances, Partial: outcome.Partial}
		if outcome.Err != nil {
			results[i].State, results[i].Error = presence.Unknown, problemOf(outcome.Err).Code
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"id": id, "results": results})
}

// pushOf makes a push of a body, for nobody yet.
func (s *Server) pushOf(body pushBody, id uuid.UUID) (push fanout.Push, err error) {
	if push.Exclude, err = body.excluded(); err != nil {
		return push, err
	}
	push.Frame, err = body.frame(id, s.options.MaxMessageBytes)
	return push, err
}

// emitAnswer tells what became of an emit.
type emitAnswer struct {
	ID        uuid.UUID `json:"id"`
	Instances int       `json:"instances"`
	Partial   bool      `json:"partial,omitempty"`
}

// emit answers POST /emit/….
func (s *Server) emit(to presence.Audience) echo.HandlerFunc {
	return func(c *echo.Context) error {
		if err := s.refuseWait(c); err != nil {
			return err
		}
		var body eventBody
		if err := readBody(c, int64(s.options.MaxMessageBytes), &body); err != nil {
			return err
		}
		id := newID()
		frame, err := body.frame(id, s.options.MaxMessageBytes)
		if err != nil {
			return err
		}
		instances, partial, err := s.options.Router.Emit(c.Request().Context(), to, frame)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, emitAnswer{ID: id, Instances: instances, Partial: partial})
	}
}

// refuseWait refuses to promise what this version can't tell.
func (s *Server) refuseWait(c *echo.Context) error {
	if wait := c.QueryParam("wait"); wait != "" && wait != "routed" {
		return problem(http.StatusBadRequest, "bad_wait", "wait: this version knows only routed, not %q", wait)
	}
	return nil
}

// newID makes the id of a push: a UUID of version 7, so that ids sort by time.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
