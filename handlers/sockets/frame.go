package sockets

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"rollcall/handlers/strict"
)

// The protocol's own events.
const (
	// Reserved is what the names of the protocol's own events begin with.
	Reserved = "rollcall:"
	// MaxRefBytes is the most that a ref may have.
	MaxRefBytes = 128

	eventWelcome   = Reserved + "welcome"
	eventReachable = Reserved + "reachable"
	eventError     = Reserved + "error"
	eventGoaway    = Reserved + "goaway"
	eventAck       = Reserved + "ack"
	eventPing      = Reserved + "ping"
	eventPong      = Reserved + "pong"
)

// Codes of rollcall:error.
const (
	codeBadJSON       = "bad_json"        // not one JSON object in UTF-8, or a field comes twice
	codeBadFrame      = "bad_frame"       // a field is missing or of the wrong type
	codeBadData       = "bad_data"        // the data are not what this event's handler takes
	codeBinaryFrame   = "binary_frame"    // frames must be text
	codeFrameTooLarge = "frame_too_large" // larger than the welcome allows
	codeUnknownEvent  = "unknown_event"   // no handler has this name
	codeReservedEvent = "reserved_event"  // the name is the protocol's own
	codeFailed        = "failed"          // the handler failed; it was logged
	codeRateLimited   = "rate_limited"    // the client sends faster than it may; the frame was not handled
	codeNotMirrored   = "not_mirrored"    // an answer may not have reached the user's other sockets
)

// message is a frame from a client.
type message struct {
	event string
	data  []byte // JSON; never empty
	ref   string
}

// frameError is what a client gets for a frame that can't be answered.
type frameError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *frameError) Error() string { return e.Code + ": " + e.Message }

// parseMessage reads a frame. With an error, the message still has the ref if there was one.
func parseMessage(frame []byte) (message, error) {
	var fields struct {
		Event jsontext.Value `json:"event"`
		Data  jsontext.Value `json:"data"`
		Ref   jsontext.Value `json:"ref"`
	}
	if fault := strict.Decode(frame, &fields); fault != "" {
		return message{}, &frameError{codeBadJSON, `want {"event":…,"data":…,"ref":…}; ` + fault}
	}
	var m message
	if fields.Ref != nil {
		if err := json.Unmarshal(fields.Ref, &m.ref); err != nil || len(m.ref) > MaxRefBytes {
			fault := fmt.Sprintf("ref: want a string of at most %d bytes", MaxRefBytes)
			return message{}, &frameError{codeBadFrame, fault}
		}
	}
	err := json.Unmarshal(fields.Event, &m.event)
	if err != nil || fields.Event.Kind() != jsontext.KindString {
		return m, &frameError{codeBadFrame, "event: want a string"}
	}
	if m.data = fields.Data; len(m.data) == 0 {
		m.data = []byte("null")
	}
	return m, nil
}

// EncodeFrame makes a frame for clients. data must be valid JSON. id, of a push or emit, and ref, of the
// message that this answers, are left out if empty.
func EncodeFrame(event string, data []byte, id, ref string) []byte {
	frame := make([]byte, 0, len(event)+len(data)+len(id)+len(ref)+48)
	frame = append(frame, `{"event":`...)
	frame = strict.AppendString(frame, event)
	frame = append(frame, `,"data":`...)
	frame = append(frame, data...)
	if id != "" {
		frame = strict.AppendString(append(frame, `,"id":`...), id)
	}
	if ref != "" {
		frame = strict.AppendString(append(frame, `,"ref":`...), ref)
	}
	return append(frame, '}')
}

// frameID is the id in a frame of ours; empty: it has none. It is for tracing only.
func frameID(frame []byte) string {
	var f struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(frame, &f)
	return f.ID
}

// encodeError makes the frame that tells a client what was wrong.
func encodeError(err error, ref string) []byte {
	var fault *frameError
	if !errors.As(err, &fault) {
		fault = &frameError{codeFailed, "the handler of this event failed; it was logged"}
	}
	return EncodeFrame(eventError, strict.Marshal(fault), "", ref)
}
