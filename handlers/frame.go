package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
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
	codeBadJSON       = "bad_json"        // not one JSON object in UTF-8
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
	data  json.RawMessage // never empty
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
	if !utf8.Valid(frame) {
		return message{}, &frameError{codeBadJSON, "the frame is not UTF-8"}
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(frame, &fields); err != nil || fields == nil {
		return message{}, &frameError{codeBadJSON, `the frame is not a JSON object; want {"event":…,"data":…,"ref":…}`}
	}
	var m message
	if ref, ok := fields["ref"]; ok {
		if err := json.Unmarshal(ref, &m.ref); err != nil || len(m.ref) > maxRefBytes {
			return message{}, &frameError{codeBadFrame, fmt.Sprintf("ref: want a string of at most %d bytes", maxRefBytes)}
		}
	}
	if err := json.Unmarshal(fields["event"], &m.event); err != nil || fields["event"][0] != '"' {
		return m, &frameError{codeBadFrame, "event: want a string"}
	}
	if m.data = fields["data"]; len(m.data) == 0 {
		m.data = json.RawMessage("null")
	}
	return m, nil
}

// encodeFrame makes a frame for clients. data must be valid JSON; id and ref are left out if empty.
func encodeFrame(event string, data json.RawMessage, id, ref string) []byte {
	frame := make([]byte, 0, len(event)+len(data)+len(id)+len(ref)+48)
	frame = append(frame, `{"event":`...)
	frame = appendString(frame, event)
	frame = append(frame, `,"data":`...)
	frame = append(frame, data...)
	if id != "" {
		frame = append(append(frame, `,"id":`...), appendString(nil, id)...)
	}
	if ref != "" {
		frame = append(append(frame, `,"ref":`...), appendString(nil, ref)...)
	}
	return append(frame, '}')
}

// frameID is the id in a frame; empty: it has none. Only for tracing.
func frameID(frame []byte) string {
	var f struct{ ID string }
	_ = json.Unmarshal(frame, &f) // it is one of ours
	return f.ID
}

func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be marshalled
	}
	return append(b, text...)
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
func mustMarshal(v any) json.RawMessage {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(text.Bytes())
}
