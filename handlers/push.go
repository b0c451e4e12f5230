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
	"rollcall/handlers/strict"
	"rollcall/presence"
)

const (
	maxUsers  = 1000      // in one POST /push
	usersSize = 512 << 10 // bytes of a body for the names of users; many libraries write them as \u escapes

	answerSize = 128 // bytes that the answer to a push usually fits into
)

// pusher sends pushes and emits to sockets on all instances.
type pusher interface {
	Begin(pushes []fanout.Push, until time.Time) *fanout.Ticket
	Emit(ctx context.Context, emit fanout.Emit) (fanout.Outcome, error)
}

// pushAnswer is what became of a push.
type pushAnswer struct {
	line    lineID // zero if this is no line of a stream
	id      string // empty for one of many users: their pushes share an id, which stands beside the results
	user    string
	wait    fanout.Wait
	outcome fanout.Outcome
}

// appendTo appends the answer as JSON. The fields after "instances" come only where they apply:
//
//	{"id":"…","user":"alice","state":"online","instances":1,"partial":true,"sockets":{…},"error":"busy"}
//
// It does so without reflection, which took a fifth of the whole time that a streamed push costs.
func (a pushAnswer) appendTo(b []byte) []byte {
	b = a.line.appendTo(append(b, '{'))
	if a.id != "" {
		b = append(strict.AppendString(append(b, `"id":`...), a.id), ',')
	}
	state := a.outcome.State
	if a.outcome.Err != nil {
		state = presence.Unknown
	}
	b = strict.AppendString(append(b, `"user":`...), a.user)
	b = strict.AppendString(append(b, `,"state":`...), state.String())
	b = strconv.AppendInt(append(b, `,"instances":`...), int64(a.outcome.Instances), 10)
	if a.outcome.Partial {
		b = append(b, `,"partial":true`...)
	}
	if a.wait != fanout.Routed {
		b = append(append(b, `,"sockets":`...), strict.Marshal(a.outcome.Sockets)...)
	}
	if a.outcome.Err != nil {
		b = strict.AppendString(append(b, `,"error":`...), problemOf(a.outcome.Err).Code)
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
	push, err := s.newPush(body, wait)
	if err != nil {
		return err
	}
	push.User = user
	outcome := s.send(c.Request().Context(), []fanout.Push{push}, timeout)[0]
	if outcome.Err != nil {
		return outcome.Err
	}
	answer := pushAnswer{id: push.ID.String(), user: user, wait: wait, outcome: outcome}
	return c.JSONBlob(http.StatusOK, append(answer.appendTo(make([]byte, 0, answerSize)), '\n'))
}

// pushMany answers POST /push.
func (s *Server) pushMany(c echo.Context) error {
	if isStream(c.Request()) {
		return s.stream(c)
	}
	if c.QueryParams().Has("answers") {
		return problem(http.StatusBadRequest, "bad_query",
			"answers: is only for streams, whose Content-Type is application/x-ndjson")
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
		return problem(http.StatusBadRequest, "bad_users",
			"users: want 1 to %d user ids, not %d", maxUsers, len(body.Users))
	}
	push, err := s.newPush(body.pushBody, wait)
	if err != nil {
		return err
	}
	push.Shared = &presence.Shared{}
	pushes, index, err := pushForEach(body.Users, push)
	if err != nil {
		return err
	}
	outcomes := s.send(c.Request().Context(), pushes, timeout)
	answer := fmt.Appendf(make([]byte, 0, len(body.Users)*answerSize), `{"id":%q,"results":[`, push.ID)
	for i, user := range body.Users {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = pushAnswer{user: user, wait: wait, outcome: outcomes[index[user]]}.appendTo(answer)
	}
	return c.JSONBlob(http.StatusOK, append(answer, "]}\n"...))
}

// pushForEach makes one push for each user, also for one who is named twice. index says which push is whose.
func pushForEach(users []string, push fanout.Push) (pushes []fanout.Push, index map[string]int, err error) {
	pushes, index = make([]fanout.Push, 0, len(users)), make(map[string]int, len(users))
	for _, user := range users {
		if p := checkUser("users", user); p != nil {
			return nil, nil, p
		}
		if _, named := index[user]; !named {
			index[user] = len(pushes)
			push.User = user
			pushes = append(pushes, push)
		}
	}
	return pushes, index, nil
}

// newPush makes a push of a body. It has a new id and no user yet.
func (s *Server) newPush(body pushBody, wait fanout.Wait) (push fanout.Push, err error) {
	push.ID, push.Wait = newID(), wait
	if push.Exclude, err = socketID("exclude", body.Exclude); err != nil {
		return push, err
	}
	push.Frame, err = body.frame(push.ID, s.options.MaxMessageBytes)
	return push, err
}

// send sends pushes and waits until it is known what became of them.
func (s *Server) send(ctx context.Context, pushes []fanout.Push, timeout time.Duration) []fanout.Outcome {
	outcomes := s.options.Bus.Begin(pushes, time.Now().Add(timeout)).Wait(ctx)
	for i, outcome := range outcomes {
		s.logPush(ctx, pushes[i].ID, pushes[i].User, outcome)
	}
	return outcomes
}

// logPush logs what became of a push, at level debug. The sockets log when they wrote it.
func (s *Server) logPush(ctx context.Context, id uuid.UUID, user string, outcome fanout.Outcome) {
	if log := s.options.Log; log.Enabled(ctx, slog.LevelDebug) { // the arguments are costly
		log.Debug("push", "id", id, "user", user, "state", outcome.State.String(),
			"instances", outcome.Instances, "partial", outcome.Partial, "error", outcome.Err)
	}
}

// emitAnswer is what became of an emit.
type emitAnswer struct {
	ID        uuid.UUID        `json:"id"`
	Instances int              `json:"instances"` // that took it
	Partial   bool             `json:"partial,omitempty"`
	Sockets   *presence.Counts `json:"sockets,omitempty"`
}

// emit answers POST /emit/all and POST /emit/authenticated.
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
		outcome, err := s.options.Bus.Emit(ctx, fanout.Emit{To: to, Frame: frame, Wait: wait, ID: id})
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

// newID makes the id of a push: a UUID of version 7, so that ids sort by time.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
