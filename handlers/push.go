package handlers

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"rollcall/fanout"
	"rollcall/presence"
)

const (
	maxUsers  = 1000      // in one POST /push
	usersSize = 512 << 10 // bytes that their names may add to a body; many libraries write them as \u escapes

	defaultWait = 2 * time.Second // until a push that could not be sent is given up, and what is not known of it is unanswered

	usualAnswer = 128 // bytes that most answers to a push fit into
)

// pusher sends pushes and emits to sockets on all instances.
type pusher interface {
	Begin(pushes []fanout.Push, until time.Time) *fanout.Ticket
	Emit(ctx context.Context, emit fanout.Emit) (fanout.Outcome, error)
}

// pushAnswer tells what became of a push.
type pushAnswer struct {
	line    lineName // of a stream
	id      string   // of a push to one user; empty: many share one
	user    string
	wait    fanout.Wait
	outcome fanout.Outcome
}

// appendTo appends the answer as JSON:
//
//	{"id":…,"user":…,"state":…,"instances":…}   and, if it is so: "partial":true, "sockets":{…}, "error":…
//
// Mostly there is nothing else to do for a push than this, so it is done by hand: reflection took a fifth of a streamed push's own time.
func (a pushAnswer) appendTo(b []byte) []byte {
	b = a.line.appendTo(append(b, '{'))
	if a.id != "" {
		b = append(appendString(append(b, `"id":`...), a.id), ',')
	}
	state, fault := a.outcome.State, ""
	if a.outcome.Err != nil {
		state, fault = presence.Unknown, problemOf(a.outcome.Err).Code
	}
	b = appendString(append(b, `"user":`...), a.user)
	b = appendString(append(b, `,"state":`...), state.String())
	b = strconv.AppendInt(append(b, `,"instances":`...), int64(a.outcome.Instances), 10) // that took it
	if a.outcome.Partial {
		b = append(b, `,"partial":true`...) // only this one: Redis is out of reach
	}
	if a.wait != fanout.Routed {
		b = append(append(b, `,"sockets":`...), mustMarshal(a.outcome.Sockets)...)
	}
	if fault != "" { // of one among many: why nobody took it
		b = appendString(append(b, `,"error":`...), fault)
	}
	return append(b, '}')
}

// push answers POST /push/:user.
func (s *Server) push(c echo.Context) error {
	user, err := userParam(c)
	if err != nil {
		return err
	}
	wait, timeout, err := waitFrom(c)
	if err != nil {
		return err
	}
	var body pushBody
	if err := readBody(c, int64(s.options.MaxMessageBytes), &body); err != nil {
		return err
	}
	id := newID()
	push, err := s.pushOf(body, id, wait)
	if err != nil {
		return err
	}
	push.User = user
	ticket := s.options.Router.Begin([]fanout.Push{push}, time.Now().Add(timeout))
	outcome := ticket.Wait(c.Request().Context())[0]
	s.trace(id, user, outcome)
	if outcome.Err != nil {
		return outcome.Err
	}
	answer := pushAnswer{lineName{}, id.String(), user, wait, outcome}.appendTo(make([]byte, 0, usualAnswer))
	return c.JSONBlob(http.StatusOK, append(answer, '\n'))
}

// trace logs what became of a push; the sockets log when it was written.
func (s *Server) trace(id uuid.UUID, user string, outcome fanout.Outcome) {
	if log := s.options.Log; log.Enabled(s.options.Context, slog.LevelDebug) { // asked first: making the words costs more
		log.Debug("push", "id", id, "user", user, "state", outcome.State.String(), "instances", outcome.Instances,
			"partial", outcome.Partial, "error", outcome.Err)
	}
}

// pushMany answers POST /push.
func (s *Server) pushMany(c echo.Context) error {
	if isStream(c.Request()) {
		return s.stream(c)
	}
	if c.QueryParams().Has("answers") {
		return problem(http.StatusBadRequest, "bad_query",
			"answers: is for streams alone, which are of Content-Type: application/x-ndjson")
	}
	wait, timeout, err := waitFrom(c)
	if err != nil {
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
	push, err := s.pushOf(body.pushBody, id, wait)
	if err != nil {
		return err
	}
	push.Shared = &presence.Shared{}
	pushes := make([]fanout.Push, 0, len(body.Users))
	place := make(map[string]int, len(body.Users)) // among the pushes, by user: who is named twice gets one
	for _, user := range body.Users {
		if p := checkUser("users", user); p != nil {
			return p
		}
		if _, named := place[user]; !named {
			place[user] = len(pushes)
			push.User = user
			pushes = append(pushes, push)
		}
	}
	outcomes := s.options.Router.Begin(pushes, time.Now().Add(timeout)).Wait(c.Request().Context())
	for i, outcome := range outcomes {
		s.trace(id, pushes[i].User, outcome)
	}
	answer := fmt.Appendf(make([]byte, 0, len(body.Users)*usualAnswer), `{"id":%q,"results":[`, id)
	for i, user := range body.Users {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = pushAnswer{lineName{}, "", user, wait, outcomes[place[user]]}.appendTo(answer)
	}
	return c.JSONBlob(http.StatusOK, append(answer, "]}\n"...))
}

// pushOf makes a push of a body, for nobody yet.
func (s *Server) pushOf(body pushBody, id uuid.UUID, wait fanout.Wait) (push fanout.Push, err error) {
	push.ID, push.Wait = id, wait
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

	Sockets *presence.Counts `json:"sockets,omitempty"`
}

// emit answers POST /emit/….
func (s *Server) emit(to presence.Audience) echo.HandlerFunc {
	return func(c echo.Context) error {
		wait, timeout, err := waitFrom(c)
		if err != nil {
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
		ctx, cancel := context.WithTimeout(c.Request().Context(), timeout)
		defer cancel()
		outcome, err := s.options.Router.Emit(ctx, fanout.Emit{To: to, Frame: frame, Wait: wait, ID: id})
		if err != nil {
			return err
		}
		answer := emitAnswer{ID: id, Instances: outcome.Instances, Partial: outcome.Partial}
		if wait != fanout.Routed {
			answer.Sockets = &outcome.Sockets
		}
		return c.JSON(http.StatusOK, answer)
	}
}

var waits = map[string]fanout.Wait{"": fanout.Routed, "routed": fanout.Routed, "written": fanout.Written, "acked": fanout.Acked}

// waitFrom reads what the caller waits for, and how long.
func waitFrom(c echo.Context) (fanout.Wait, time.Duration, error) {
	wait, known := waits[c.QueryParam("wait")]
	if !known {
		return 0, 0, problem(http.StatusBadRequest, "bad_wait", "wait: want routed, written or acked, not %q", c.QueryParam("wait"))
	}
	given := c.QueryParam("timeout")
	if given == "" {
		return wait, defaultWait, nil
	}
	timeout, err := time.ParseDuration(given)
	if err != nil || timeout <= 0 || timeout > fanout.MaxWait {
		return 0, 0, problem(http.StatusBadRequest, "bad_timeout", "timeout: want a duration up to %v, such as 500ms, not %q", fanout.MaxWait, given)
	}
	return wait, timeout, nil
}

// newID makes the id of a push: a UUID of version 7, so that ids sort by time.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
