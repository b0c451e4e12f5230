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

// Handler answers one event of a client: it calls [Responder.Send] as often as it likes. An error ends the answer; the client is told
// of it, in detail only if it comes from [Request.Decode]. Messages of one socket are handled one after the other.
type Handler func(ctx context.Context, q Request, a *Responder) error

// Builtin are the handlers of this service. To add one: write it in a file of its own, and name it here.
func Builtin() map[string]Handler {
	return map[string]Handler{
		"events": events,
	}
}

// handlerTime is how long a handler may take before its context ends.
const handlerTime = 30 * time.Second

// Request is what a client asked.
type Request struct {
	Event  string
	Data   json.RawMessage // null if the client gave none
	User   string          // empty: anonymous
	Socket uuid.UUID
}

// Decode reads the data into v. If they do not fit, it returns an error that tells the client so.
func (q Request) Decode(v any) error {
	if err := json.Unmarshal(q.Data, v); err != nil {
		return &frameError{codeBadData, "data: " + err.Error()}
	}
	return nil
}

// Responder sends what a handler answers.
type Responder struct {
	ctx     context.Context // the handler's own
	gateway *gateway
	socket  *socket
	ref     string
	event   string

	tickets []*fanout.Ticket // of answers on their way to other sockets: the window; at most mirrorWindow
	bytes   int              // of their frames
	failed  []error          // why some may not have got there
}

// mirrorWindow and mirrorBytes are how many answers of one message may be on their way to other sockets, and with how many bytes, unless
// it is one; a handler that sends more waits.
const (
	mirrorWindow = 128
	mirrorBytes  = 256 << 10
)

// Send answers with the question's own event: to the socket that asked, and to all other sockets of the same user, on every instance.
// It waits if those instances are behind.
func (a *Responder) Send(data any) error {
	text, err := a.toAsker(data)
	if err != nil || a.socket.User == "" {
		return err
	}
	frame := encodeFrame(a.event, text, "", "")
	if len(a.tickets) == mirrorWindow || len(a.tickets) > 0 && a.bytes+len(frame) > mirrorBytes {
		a.waitMirrored()
	}
	push := fanout.Push{User: a.socket.User, Exclude: a.socket.ID, Frame: frame, FromClient: true}
	if len(a.tickets) == 0 {
		// Other instances tell when they have handed the first one to their sockets, and that is waited for: so an asker is never
		// more than a window ahead of them. A user's pushes keep their order, so all before it is handed then too.
		push.Wait = fanout.Handed
	}
	a.tickets = append(a.tickets, a.gateway.router.Begin([]fanout.Push{push}, time.Now().Add(defaultWait)))
	a.bytes += len(frame)
	return nil
}

// ReplyOnly answers the socket that asked, and no other.
func (a *Responder) ReplyOnly(data any) error {
	_, err := a.toAsker(data)
	return err
}

func (a *Responder) toAsker(data any) (json.RawMessage, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	a.socket.sendFrame(encodeFrame(a.event, text, "", a.ref))
	return text, nil
}

// waitMirrored waits until all answers are on their way to the user's other sockets, and the first of them is handed to these, or can't
// be.
func (a *Responder) waitMirrored() {
	for _, ticket := range a.tickets {
		switch outcome := ticket.Wait(a.ctx)[0]; {
		case outcome.Err != nil:
			a.failed = append(a.failed, outcome.Err)
		case outcome.Partial:
			a.failed = append(a.failed, fanout.ErrUnreachable)
		case outcome.Sockets.Unanswered > 0:
			a.failed = append(a.failed, errBehind)
		}
	}
	a.tickets, a.bytes = a.tickets[:0], 0
}

var errBehind = errors.New("another instance has not handed an answer to its sockets in time")

// gateway brings clients' messages to handlers, and their answers back.
type gateway struct {
	// static after construction
	handlers map[string]Handler
	router   pusher
	log      *slog.Logger
	meter    Meter
}

// answer handles one frame of a socket, and returns when the next may be read. A ping or an ack is answered at once. Any other frame
// waits until the one before it has its last answer, so that answers keep the order of the questions. Its handler then works while the
// next frame is read: otherwise, with a handler that takes ten seconds, a ping would lie unread, and the client believe that the path
// is dead.
func (g *gateway) answer(ctx context.Context, s *socket, frame []byte) {
	m, err := parseMessage(frame)
	switch {
	case err == nil && m.event == eventPing:
		s.sendFrame(encodeFrame(eventPong, []byte("{}"), "", m.ref))
		return
	case err == nil && m.event == eventAck:
		if err := acknowledge(s, m); err != nil {
			s.sendFrame(encodeError(err, m.ref))
		}
		return
	}
	s.handling.Lock()
	go func() { // disconnect waits for it
		defer s.handling.Unlock()
		defer logPanic(s.hub.options.Log, "message", "user", s.User)
		if err == nil {
			err = g.measured(ctx, s, m)
		} else {
			g.meter.Handled(noSuchEvent, eventRefused, 0)
		}
		if err != nil {
			s.sendFrame(encodeError(err, m.ref))
		}
	}()
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
	handler, ok := g.handlers[m.event]
	if !ok {
		return unknownEvent(m.event)
	}
	ctx, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	a := &Responder{ctx: ctx, gateway: g, socket: s, ref: m.ref, event: m.event}
	q := Request{Event: m.event, Data: m.data, User: s.User, Socket: s.ID}
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
	push, err := confirmedPush(m)
	if err == nil {
		s.outbox.acked(push)
	}
	return err
}

// confirmedPush is the id in the data of a confirmation.
func confirmedPush(m message) (uuid.UUID, error) {
	var data struct {
		ID uuid.UUID `json:"id"`
	}
	if err := json.Unmarshal(m.data, &data); err != nil || data.ID == uuid.Nil {
		return uuid.Nil, &frameError{codeBadData, `data: want {"id": the id of a push}`}
	}
	return data.ID, nil
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
