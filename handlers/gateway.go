package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"rollcall/fanout"
)

// Handler answers one event of a client: it calls [Answers.Send] as often as it likes. An error ends the answer; the client is told
// of it, in detail only if it comes from [Question.Decode]. Messages of one socket are handled one after the other.
type Handler func(ctx context.Context, q Question, a *Answers) error

// Builtin are the handlers of this service. To add one: write it in a file of its own, and name it here.
func Builtin() map[string]Handler {
	return map[string]Handler{
		"events": events,
	}
}

// handlerTime is how long a handler may take before its context ends.
const handlerTime = 30 * time.Second

// Question is what a client asked.
type Question struct {
	Event  string
	Data   json.RawMessage // null if the client gave none
	User   string          // empty: anonymous
	Socket uuid.UUID
}

// Decode reads the data into v. If they do not fit, it returns an error that tells the client so.
func (q Question) Decode(v any) error {
	if err := json.Unmarshal(q.Data, v); err != nil {
		return &frameError{codeBadData, "data: " + err.Error()}
	}
	return nil
}

// Answers sends what a handler answers.
type Answers struct {
	ctx     context.Context // the handler's own
	gateway *gateway
	socket  *socket
	ref     string
	event   string

	tickets []*fanout.Ticket // of answers on their way to other sockets; at most mirrorWindow
	failed  []error          // why some may not have got there
}

// mirrorWindow is how many answers of one message may be on their way to other sockets; a handler that sends more waits.
const mirrorWindow = 128

// Send answers with the question's own event: to the socket that asked, and to all other sockets of the same user, on every instance.
func (a *Answers) Send(data any) error { return a.SendAs(a.event, data) }

// SendAs is Send with another event.
func (a *Answers) SendAs(event string, data any) error {
	text, err := a.toAsker(event, data)
	if err != nil || a.socket.User == "" {
		return err
	}
	if len(a.tickets) == mirrorWindow {
		a.waitMirrored()
	}
	a.tickets = append(a.tickets, a.gateway.router.Begin([]fanout.Push{{
		User: a.socket.User, Exclude: a.socket.ID, Frame: encodeFrame(event, text, "", ""),
	}}, time.Now().Add(defaultWait)))
	return nil
}

// Private answers the socket that asked, and no other.
func (a *Answers) Private(data any) error {
	_, err := a.toAsker(a.event, data)
	return err
}

func (a *Answers) toAsker(event string, data any) (json.RawMessage, error) {
	if fault := eventFault(event); fault != "" {
		return nil, fmt.Errorf("answer: the event %q %s", event, fault)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	a.socket.sendFrame(encodeFrame(event, text, "", a.ref))
	return text, nil
}

// waitMirrored waits until all answers are on their way to the user's other sockets, or can't be.
func (a *Answers) waitMirrored() {
	for _, ticket := range a.tickets {
		if outcome := ticket.Wait(a.ctx)[0]; outcome.Err != nil {
			a.failed = append(a.failed, outcome.Err)
		} else if outcome.Partial {
			a.failed = append(a.failed, fanout.ErrUnreachable)
		}
	}
	a.tickets = a.tickets[:0]
}

// gateway brings clients' messages to handlers, and their answers back.
type gateway struct {
	// static after construction
	handlers map[string]Handler
	router   *fanout.Router
	log      *slog.Logger
	meter    Meter
}

// answer handles one frame of a socket.
func (g *gateway) answer(ctx context.Context, s *socket, frame []byte) {
	m, err := parseMessage(frame)
	if err == nil {
		err = g.measured(ctx, s, m)
	} else {
		g.meter.Handled(noSuchEvent, eventRefused, 0)
	}
	if err != nil {
		s.sendFrame(encodeError(err, m.ref))
	}
}

// measured handles an event, and counts what came of it. The protocol's own events are not counted.
func (g *gateway) measured(ctx context.Context, s *socket, m message) error {
	began := time.Now()
	err := g.handle(ctx, s, m)
	name, outcome := noSuchEvent, eventDone
	if _, registered := g.handlers[m.event]; registered {
		name = m.event
	} else if strings.HasPrefix(m.event, reserved) {
		return err
	}
	if fault := (*frameError)(nil); errors.As(err, &fault) {
		outcome = eventRefused
	} else if err != nil {
		outcome = eventFailed
	}
	g.meter.Handled(name, outcome, time.Since(began))
	return err
}

func (g *gateway) handle(ctx context.Context, s *socket, m message) error {
	if m.event == eventAck {
		return acknowledge(s, m)
	}
	handler, ok := g.handlers[m.event]
	if !ok {
		return unknownEvent(m.event)
	}
	ctx, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	a := &Answers{ctx: ctx, gateway: g, socket: s, ref: m.ref, event: m.event}
	q := Question{Event: m.event, Data: m.data, User: s.User, Socket: s.ID}
	err := safely(func() error { return handler(ctx, q, a) })
	if a.waitMirrored(); len(a.failed) > 0 {
		// the client is told, and the router has warned once that Redis is out of reach
		g.log.Debug("answers not mirrored", "event", m.event, "user", s.User, "answers", len(a.failed), "error", a.failed[0])
		s.sendFrame(encodeError(&frameError{codeNotMirrored, "an answer may not have reached your other sockets"}, m.ref))
	}
	var fault *frameError
	if err != nil && !errors.As(err, &fault) {
		g.log.Error("handler failed", "event", m.event, "user", s.User, "error", err)
	}
	return err
}

// acknowledge takes a client's word that it got a push. It says nothing of pushes that nobody waits for.
func acknowledge(s *socket, m message) error {
	var data struct {
		ID uuid.UUID `json:"id"`
	}
	if err := json.Unmarshal(m.data, &data); err != nil || data.ID == uuid.Nil {
		return &frameError{codeBadData, `data: want {"id": the id of a push}`}
	}
	s.outbox.acked(data.ID)
	return nil
}

func unknownEvent(event string) error {
	if bytes.HasPrefix([]byte(event), []byte(reserved)) {
		return &frameError{codeReservedEvent, fmt.Sprintf("events that begin with %s are the protocol's own, and this one is not for clients", reserved)}
	}
	return &frameError{codeUnknownEvent, "no handler has this name"}
}

// safely makes a panic an error.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return f()
}

// logPanic, deferred, makes a panic a line of the log.
func logPanic(log *slog.Logger, what string, args ...any) {
	if p := recover(); p != nil {
		log.Error(what, append(args, "error", panicked(p))...)
	}
}

func stack() []byte { return debug.Stack() }
