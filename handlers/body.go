package handlers

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// eventBody is what every push and emit has.
type eventBody struct {
	Event string         `json:"event"`
	Data  jsontext.Value `json:"data"` // null if left out
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
func readBody(c echo.Context, limit int64, v any) error {
	r := c.Request()
	if mediaType(r) != "application/json" {
		return problem(http.StatusUnsupportedMediaType, "bad_content_type", "Content-Type: want application/json, not %q", r.Header.Get("Content-Type"))
	}
	text, err := readAll(c.Response(), r, limit)
	if err != nil {
		return err
	}
	return decodeStrictly(text, v)
}

// readAll reads a body of at most so many bytes.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &tooLarge) {
		err = problem(http.StatusBadRequest, "bad_body", "the body could not be read: %s", bodyFault(err))
	}
	return text, err
}

// bodyFault says why a body could not be read, without the error's own words: they may name addresses that are no
// business of the caller.
func bodyFault(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "it did not come in time"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended before the end that its head or its chunks announced"
	}
	return "the connection broke, or its chunks are malformed"
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
	if fault := decodeObject(text, v, strictjson.RejectUnknownMembers(true)); fault != "" {
		return badJSON(fault)
	}
	if member := cutUser(text); member != "" {
		return problem(http.StatusBadRequest, "bad_user", "%s: a user id is UTF-8; one here has half of a surrogate pair", member)
	}
	return nil
}

// cutUser names the member of a body that has a user id with half of a surrogate pair, as JavaScript leaves of a cut emoji. Decoding replaces
// it, and two users would become one. Empty: there is none.
func cutUser(text []byte) string {
	if !bytes.Contains(text, []byte(`\ud`)) && !bytes.Contains(text, []byte(`\uD`)) {
		return "" // as nearly always
	}
	var ids struct {
		User  jsontext.Value `json:"user"`
		Users jsontext.Value `json:"users"`
	}
	_ = strictjson.Unmarshal(text, &ids, jsontext.AllowInvalidUTF8(true)) // it has been decoded before
	switch {
	case ids.User != nil && !ids.User.IsValid():
		return "user"
	case ids.Users != nil && !ids.Users.IsValid():
		return "users"
	}
	return ""
}

// decodeObject reads one JSON object, in which, and within which, no field may come twice, for nobody could tell which of them is meant.
// It says what is wrong with any other text. Half of a surrogate pair, as JavaScript makes of a cut emoji, is let pass.
func decodeObject(text []byte, v any, options ...strictjson.Options) (fault string) {
	if len(bytes.TrimSpace(text)) == 0 {
		return "it is empty; want a JSON object"
	}
	if !utf8.Valid(text) {
		return "the JSON is not UTF-8"
	}
	if err := strictjson.Unmarshal(text, v, append(options, jsontext.AllowInvalidUTF8(true))...); err != nil {
		return jsonFault(err)
	}
	if jsontext.Value(text).Kind() != jsontext.KindBeginObject { // null
		return "want a JSON object, not null"
	}
	return ""
}

func badJSON(detail string) error { return problem(http.StatusBadRequest, "bad_json", "%s", detail) }

// jsonKinds are what people call the kinds of JSON that have another name.
var jsonKinds = map[jsontext.Kind]string{
	jsontext.KindBeginArray: "an array", jsontext.KindBeginObject: "an object", jsontext.KindTrue: "a boolean", jsontext.KindFalse: "a boolean",
}

func kindName(kind jsontext.Kind) string { return cmp.Or(jsonKinds[kind], "a "+kind.String()) }

func jsonFault(err error) string {
	var meaning *strictjson.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &meaning):
		field := strings.TrimPrefix(string(meaning.JSONPointer), "/")
		kind := kindName(meaning.JSONKind)
		switch {
		case errors.Is(err, strictjson.ErrUnknownName):
			return fmt.Sprintf("unknown field %q", meaning.JSONPointer.LastToken())
		case field == "":
			return "want a JSON object, not " + kind
		}
		if meaning.GoType == reflect.TypeFor[*float64]() || meaning.GoType == reflect.TypeFor[float64]() {
			return fmt.Sprintf("%s: want a number, not %s", field, kind)
		}
		return fmt.Sprintf("%s: want a %v, not %s", field, meaning.GoType, kind)
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return fmt.Sprintf("the field %q comes twice", syntax.JSONPointer.LastToken())
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON: %v, at byte %d", syntax.Err, syntax.ByteOffset+1)
	}
	return err.Error()
}

// frame checks the event and makes the frame that clients get, with an id.
func (b eventBody) frame(id uuid.UUID, limit int) ([]byte, error) {
	if p := checkEvent(b.Event); p != nil {
		return nil, p
	}
	data := b.Data
	if len(data) == 0 {
		data = jsontext.Value("null")
	}
	if len(data) > limit {
		return nil, problem(http.StatusRequestEntityTooLarge, "data_too_large", "data: has %d bytes; the limit is %d", len(data), limit)
	}
	return encodeFrame(b.Event, data, id.String(), ""), nil
}

// excluded reads the id of the socket that must not get the push; uuid.Nil: none.
func (b pushBody) excluded() (uuid.UUID, error) { return socketID("exclude", b.Exclude) }
