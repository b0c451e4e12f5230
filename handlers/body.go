package handlers

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"rollcall/handlers/sockets"
	"rollcall/handlers/strict"
)

// eventBody is the body of POST /emit/…, and a part of every push.
type eventBody struct {
	Event string         `json:"event"`
	Data  jsontext.Value `json:"data"` // any JSON; null if left out
}

// pushBody is the body of POST /push/:user.
type pushBody struct {
	eventBody
	Exclude string `json:"exclude"` // the id of a socket that must not get it; optional
}

// pushManyBody is the body of POST /push.
type pushManyBody struct {
	pushBody
	Users []string `json:"users"`
}

// readBody reads a JSON object of at most limit bytes into v. Fields that v does not have are an error: a
// misspelt "exlcude" would otherwise be ignored, and the socket that was to be left out would get the push.
func readBody(c echo.Context, limit int64, v any) error {
	r := c.Request()
	if mediaType(r) != "application/json" {
		return problem(http.StatusUnsupportedMediaType, "bad_content_type",
			"Content-Type: want application/json, not %q", r.Header.Get("Content-Type"))
	}
	text, err := readAll(c.Response(), r, limit)
	if err != nil {
		return err
	}
	return decodeStrictly(text, v)
}

// readAll reads a body. It fails with a *http.MaxBytesError, or with problem "bad_body".
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &tooLarge) {
		err = problem(http.StatusBadRequest, "bad_body", "the body could not be read: %s", bodyFault(err))
	}
	return text, err
}

// bodyFault says why a body could not be read. It does not quote the error, which may name addresses of our
// network.
func bodyFault(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "it did not come in time"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended before the end that its Content-Length or its chunks announced"
	}
	return "the connection broke, or its chunks are malformed"
}

func mediaType(r *http.Request) string {
	given := r.Header.Get("Content-Type")
	if given == "application/json" { // nearly always: no need to parse it
		return given
	}
	media, _, err := mime.ParseMediaType(given)
	if err != nil {
		return ""
	}
	return media
}

// decodeStrictly reads one JSON object into v, which must have all of its fields.
func decodeStrictly(text []byte, v any) error {
	if fault := strict.Decode(text, v, strictjson.RejectUnknownMembers(true)); fault != "" {
		return problem(http.StatusBadRequest, "bad_json", "%s", fault)
	}
	if field := loneSurrogateIn(text); field != "" {
		return problem(http.StatusBadRequest, "bad_user",
			"%s: a user id is UTF-8; one here has half of a surrogate pair", field)
	}
	return nil
}

// loneSurrogateIn names the field of a body, "user" or "users", with a user id that has half of a surrogate
// pair; empty if there is none. JavaScript makes such strings when it cuts an emoji in two. Decoding replaces
// the half by U+FFFD, so two different ids would become one user.
func loneSurrogateIn(text []byte) string {
	if !bytes.Contains(text, []byte(`\ud`)) && !bytes.Contains(text, []byte(`\uD`)) {
		return "" // nearly always
	}
	var ids struct {
		User  jsontext.Value `json:"user"`
		Users jsontext.Value `json:"users"`
	}
	_ = strictjson.Unmarshal(text, &ids, jsontext.AllowInvalidUTF8(true)) // the caller has decoded it before
	switch {
	case ids.User != nil && !ids.User.IsValid():
		return "user"
	case ids.Users != nil && !ids.Users.IsValid():
		return "users"
	}
	return ""
}

// frame checks the event and makes the frame that clients get. data may have limit bytes.
func (b eventBody) frame(id uuid.UUID, limit int) ([]byte, error) {
	if p := checkEvent(b.Event); p != nil {
		return nil, p
	}
	data := b.Data
	if len(data) == 0 {
		data = jsontext.Value("null")
	}
	if len(data) > limit {
		return nil, problem(http.StatusRequestEntityTooLarge, "data_too_large",
			"data: has %d bytes; the limit is %d", len(data), limit)
	}
	return sockets.EncodeFrame(b.Event, data, id.String(), ""), nil
}
