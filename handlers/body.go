package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"
)

// eventBody is what every push and emit has.
type eventBody struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"` // null if left out
}

// pushBody is the body of POST /push/:user.
type pushBody struct {
	eventBody
	Exclude string `json:"exclude"` // a socket's id; empty: none
}

// pushManyBody is the body of POST /push.
type pushManyBody struct {
	pushBody
	Users []string `json:"users"`
}

// readBody reads a JSON object of at most so many bytes into v, and wants no field that v does not have: a misspelt one would be
// ignored without a word.
func readBody(c *echo.Context, limit int64, v any) error {
	r := c.Request()
	if mediaType(r) != "application/json" {
		return problem(http.StatusUnsupportedMediaType, "bad_content_type", "Content-Type: want application/json, not %q", r.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, limit))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return problem(http.StatusBadRequest, "bad_body", "the body could not be read: %v", err)
	}
	return decodeStrictly(text, v)
}

func mediaType(r *http.Request) string {
	if plain := r.Header.Get("Content-Type"); plain == "application/json" { // as nearly everybody has it
		return plain
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return media
}

// decodeStrictly reads one JSON object with no other fields than v has.
func decodeStrictly(text []byte, v any) error {
	if !utf8.Valid(text) {
		return badJSON("the JSON is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return badJSON(jsonFault(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badJSON("there is something after the JSON object")
	}
	return nil
}

func badJSON(detail string) error { return problem(http.StatusBadRequest, "bad_json", "%s", detail) }

func jsonFault(err error) string {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return fmt.Sprintf("want a JSON object, not a %s", wrongType.Value)
	case errors.As(err, &wrongType):
		return fmt.Sprintf("%s: want a %s, not a %s", strings.TrimPrefix(wrongType.Field, "pushBody."), wrongType.Type, wrongType.Value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON: %v, at byte %d", err, syntax.Offset)
	case errors.Is(err, io.EOF):
		return "the body is empty; want a JSON object"
	default: // an unknown field, or an unexpected end
		return strings.TrimPrefix(err.Error(), "json: ")
	}
}

// frame checks the event and makes the frame that clients get, with an id.
func (b eventBody) frame(id uuid.UUID, limit int) ([]byte, error) {
	if p := checkEvent(b.Event); p != nil {
		return nil, p
	}
	data := b.Data
	if len(data) == 0 {
		data = json.RawMessage("null")
	}
	if len(data) > limit {
		return nil, problem(http.StatusRequestEntityTooLarge, "data_too_large", "data: has %d bytes; the limit is %d", len(data), limit)
	}
	return encodeFrame(b.Event, data, id.String(), ""), nil
}

// excluded reads the id of the socket that must not get the push; uuid.Nil: none.
func (b pushBody) excluded() (uuid.UUID, error) { return socketID("exclude", b.Exclude) }
