package sockets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"rollcall/fanout"
)

// Handler answers one event of a client: it calls [Responder.Send] as often as it likes. An error ends the
// answer. The client is told, in detail only if the error comes from [Request.Decode]. Messages of one socket
// are handled one after the other.
type Handler func(ctx context.Context, req Request, res *Responder) error

// Builtin are the handlers of this service, by the names of their events. To add one: write it in a file of
// its own, and name it here.
func Builtin() map[string]Handler {
	return map[string]Handler{
		"events": events,
	}
}

// Request is an event of a client.
type Request struct {
	Event  string
	Data   json.RawMessage // null if the client gave none
	User   string          // empty: anonymous
	Socket uuid.UUID
}

// Decode reads the data into v. If they do not fit, it returns an error that tells the client so.
func (r Request) Decode(v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return &frameError{codeBadData, "data: " + err.Error()}
	}
	return nil
}

// Responder sends what a handler answers.
type Responder struct {
	ctx    context.Context // the handler's own
	bus    Bus
	socket *socket
	ref    string
	event  string

	tickets []*fanout.Ticket // of answers on their way to other sockets: the window; at most mirrorWindow
	bytes   int              // of their frames
	failed  []error          // why some may not have got there
}

// mirrorWindow and mirrorBytes are how many answers of one message may be on their way to other sockets, and
// with how many bytes. A handler that sends more waits. One answer alone may have any size.
const (
	mirrorWindow = 128
	mirrorBytes  = 256 << 10
)

// mirrorTime is after how long an answer that could not be sent to other sockets is given up.
const mirrorTime = 2 * time.Second

var errBehind = errors.New("another instance has not handed an answer to its sockets in time")

// Send answers with the event of the request: to the socket that asked, and to all other sockets of the same
// user, on every instance. It waits if those instances are behind.
func (r *Responder) Send(data any) error {
	text, err := r.reply(data)
	if err != nil || r.socket.User == "" {
		return err
	}
	frame := EncodeFrame(r.event, text, "", "")
	if len(r.tickets) == mirrorWindow || len(r.tickets) > 0 && r.bytes+len(frame) > mirrorBytes {
		r.waitMirrored()
	}
	push := fanout.Push{User: r.socket.User, Exclude: r.socket.ID, Frame: frame, FromClient: true}
	if len(r.tickets) == 0 {
		// Other instances report when they have handed the first answer of a window to their sockets, and
		// waitMirrored waits for that. So the socket that asked is never more than a window ahead of them. A
		// user's pushes keep their order, so all before it are handed over then too.
		push.Wait = fanout.Handed
	}
	r.tickets = append(r.tickets, r.bus.Begin([]fanout.Push{push}, time.Now().Add(mirrorTime)))
	r.bytes += len(frame)
	return nil
}

// ReplyOnly answers the socket that asked, and no other.
func (r *Responder) ReplyOnly(data any) error {
	_, err := r.reply(data)
	return err
}

func (r *Responder) reply(data any) (json.RawMessage, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	r.socket.sendFrame(EncodeFrame(r.event, text, "", r.ref))
	return text, nil
}

// waitMirrored waits until all answers are on their way to the user's other sockets, and the first of them is
// handed to these, or until it is known that this fails.
func (r *Responder) waitMirrored() {
	for _, ticket := range r.tickets {
		switch outcome := ticket.Wait(r.ctx)[0]; {
		case outcome.Err != nil:
			r.failed = append(r.failed, outcome.Err)
		case outcome.Partial:
			r.failed = append(r.failed, fanout.ErrUnreachable)
		case outcome.Sockets.Unanswered > 0:
			r.failed = append(r.failed, errBehind)
		}
	}
	r.tickets, r.bytes = r.tickets[:0], 0
}
