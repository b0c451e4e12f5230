package sockets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"rollcall/handlers/panics"
)

// handlerTime is how long a handler may take before its context ends.
const handlerTime = 30 * time.Second

// What a Meter is told of an event.
const (
	noSuchEvent  = "unknown" // instead of the handler's name
	eventDone    = "ok"
	eventRefused = "refused" // a mistake of the client, which was told what it is
	eventFailed  = "failed"  // a mistake of ours, or a panic
)

// dispatcher brings clients' messages to their handlers.
type dispatcher struct {
	// static after construction
	handlers map[string]Handler
	bus      Bus
	log      *slog.Logger
	meter    Meter
}

// dispatch handles one frame of a socket, and returns when the next may be read. A ping or an ack is answered
// at once. Any other frame waits until the one before it has its last answer, so that answers keep the order
// of the requests. Its handler then works while the next frame is read. Otherwise a ping would lie unread
// while a handler takes ten seconds, and the client would believe that the path is dead.
func (d *dispatcher) dispatch(ctx context.Context, s *socket, frame []byte) {
	m, err := parseMessage(frame)
	switch {
	case err == nil && m.event == eventPing:
		s.sendFrame(EncodeFrame(eventPong, []byte("{}"), "", m.ref))
		return
	case err == nil && m.event == eventAck:
		if push, err := confirmedPush(m); err != nil {
			s.sendFrame(encodeError(err, m.ref))
		} else {
			s.outbox.ack(push)
		}
		return
	}
	s.handling.Lock()
	go func() { // socket.disconnected waits for it
		defer s.handling.Unlock()
		defer panics.Log(d.log, "message", "user", s.User)
		if err == nil {
			err = d.measure(ctx, s, m)
		} else {
			d.meter.Handled(noSuchEvent, eventRefused, 0)
		}
		if err != nil {
			s.sendFrame(encodeError(err, m.ref))
		}
	}()
}

// measure handles an event, and counts its result. The protocol's own events are not counted.
func (d *dispatcher) measure(ctx context.Context, s *socket, m message) error {
	began := time.Now()
	err := d.handle(ctx, s, m)
	name, result := noSuchEvent, eventDone
	if _, registered := d.handlers[m.event]; registered {
		name = m.event
	} else if strings.HasPrefix(m.event, Reserved) {
		return err
	}
	if fault := (*frameError)(nil); errors.As(err, &fault) {
		result = eventRefused
	} else if err != nil {
		result = eventFailed
	}
	d.meter.Handled(name, result, time.Since(began))
	return err
}

func (d *dispatcher) handle(ctx context.Context, s *socket, m message) error {
	handler, ok := d.handlers[m.event]
	if !ok {
		return unknownEvent(m.event)
	}
	ctx, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	res := &Responder{ctx: ctx, bus: d.bus, socket: s, ref: m.ref, event: m.event}
	req := Request{Event: m.event, Data: m.data, User: s.User, Socket: s.ID}
	err := panics.Catch(func() error { return handler(ctx, req, res) })
	if res.waitMirrored(); len(res.failed) > 0 {
		// the client is told, and the bus has warned once that Redis is out of reach
		d.log.Debug("answers not mirrored",
			"event", m.event, "user", s.User, "answers", len(res.failed), "error", res.failed[0])
		fault := &frameError{codeNotMirrored, "an answer may not have reached your other sockets"}
		s.sendFrame(encodeError(fault, m.ref))
	}
	var fault *frameError
	if err != nil && !errors.As(err, &fault) {
		d.log.Error("handler failed", "event", m.event, "user", s.User, "error", err)
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
	if strings.HasPrefix(event, Reserved) {
		return &frameError{codeReservedEvent, fmt.Sprintf(
			"events that begin with %s are the protocol's own, and this one is not for clients", Reserved)}
	}
	return &frameError{codeUnknownEvent, "no handler has this name"}
}
