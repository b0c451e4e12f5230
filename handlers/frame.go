package handlers

import (
	"errors"
	"fmt"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The protocol's own events.
const (
	eventWelcome   = reserved + "welcome"
	eventReachable = reserved + "reachable"
	eventError     = reserved + "error"
	eventGoaway    = reserved + "goaway"
	eventAck       = reserved + "ack"
)

// Codes of rollcall:error.
const (
	codeBadJSON       = "bad_json"        // not one JSON object in UTF-8, or a field comes twice
	codeBadFrame      = "bad_frame"       // a field is missing or of the wrong type
	codeBadData       = "bad_data"        // the data are not what this event's handler takes
	codeBinaryFrame   = "binary_frame"    // frames must be text
	codeFrameTooLarge = "frame_too_large" //
	codeUnknownEvent  = "unknown_event"   // no handler has this name
	codeReservedEvent = "reserved_event"  // the name is the protocol's own
	codeFailed        = "failed"          // the handler failed; it was logged
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
	if fault := decodeObject(frame, &fields); fault != "" {
		return message{}, &frameError{codeBadJSON, `want {"event":…,"data":…,"ref":…}; ` + fault}
	}
	var m message
	if fields.Ref != nil {
		if err := strictjson.Unmarshal(fields.Ref, &m.ref); err != nil || len(m.ref) > maxRefBytes {
			return message{}, &frameError{codeBadFrame, fmt.Sprintf("ref: want a string of at most %d bytes", maxRefBytes)}
		}
	}
	if err := strictjson.Unmarshal(fields.Event, &m.event); err != nil || fields.Event.Kind() != jsontext.KindString {
		return m, &frameError{codeBadFrame, "event: want a string"}
	}
	if m.data = fields.Data; len(m.data) == 0 {
		m.data = []byte("null")
	}
	return m, nil
}

// encodeFrame makes a frame for clients. data must be valid JSON; id and ref are left out if empty.
func encodeFrame(event string, data []byte, id, ref string) []byte {
	frame := make([]byte, 0, len(event)+len(data)+len(id)+len(ref)+48)
	frame = append(frame, `{"event":`...)
	frame = appendString(frame, event)
	frame = append(frame, `,"data":`...)
	frame = append(frame, data...)
	if id != "" {
		frame = appendString(append(frame, `,"id":`...), id)
	}
	if ref != "" {
		frame = appendString(append(frame, `,"ref":`...), ref)
	}
	return append(frame, '}')
}

// frameID is the id in a frame; empty: it has none. Only for tracing.
func frameID(frame []byte) string {
	var f struct {
		ID string `json:"id"`
	}
	_ = strictjson.Unmarshal(frame, &f) // it is one of ours
	return f.ID
}

func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // what is not UTF-8 is replaced
	return b
}

// encodeError makes the frame that tells a client what was wrong.
func encodeError(err error, ref string) []byte {
	var fault *frameError
	if !errors.As(err, &fault) {
		fault = &frameError{codeFailed, "the handler of this event failed; it was logged"}
	}
	return encodeFrame(eventError, mustMarshal(fault), "", ref)
}

// mustMarshal is for values of our own types, which can always be marshalled.
func mustMarshal(v any) jsontext.Value {
	text, err := strictjson.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err)
	}
	return text
}
