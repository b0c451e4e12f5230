package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
)

const maxKeyBytes = 255 // of an Idempotency-Key

// doer does something at most once for a key, and remembers the answer.
type doer interface {
	Once(
		ctx context.Context, key string, fingerprint []byte, do func() (answer []byte, err error),
	) (answer []byte, again bool, err error)
}

// once lets a request with an Idempotency-Key be done at most once, on whichever instance it comes again. Requests without one pass.
func (s *Server) once(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		keys := c.Request().Header.Values("Idempotency-Key")
		if len(keys) == 0 {
			return next(c)
		}
		if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKeyBytes {
			return problem(http.StatusBadRequest, "bad_idempotency_key", "Idempotency-Key: want one, of 1 to %d bytes", maxKeyBytes)
		}
		if isStream(c.Request()) {
			return problem(http.StatusBadRequest, "bad_idempotency_key", "Idempotency-Key: a stream can't have one; send its lines as requests of their own")
		}
		fingerprint, err := fingerprintOf(c.Response(), c.Request(), int64(s.options.MaxMessageBytes+usersSize))
		if err != nil {
			return err
		}
		// what is remembered must not depend on how long this caller waits: to give up and ask again is what the key is for
		c.SetRequest(c.Request().WithContext(context.WithoutCancel(c.Request().Context())))
		answer, again, err := s.options.Router.Once(c.Request().Context(), keys[0], fingerprint, func() ([]byte, error) { return record(c, next) })
		if err != nil {
			return err
		}
		if again {
			c.Response().Header().Set("Idempotent-Replayed", "true")
		}
		return c.JSONBlob(http.StatusOK, answer)
	}
}

// fingerprintOf tells requests apart: by method, path, query and body, which it leaves to be read again.
func fingerprintOf(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := readAll(w, r, limit)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	hash := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.URL.RequestURI()), body} {
		hash.Write(part)
		hash.Write([]byte{0})
	}
	return hash.Sum(nil)[:16], nil
}

// record runs a handler and keeps what it answers. Handlers that succeed answer 200.
func record(c echo.Context, next echo.HandlerFunc) ([]byte, error) {
	kept := &keptResponse{header: http.Header{}}
	defer recordInto(c, kept)()
	if err := next(c); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(kept.body.Bytes()), nil
}

type keptResponse struct {
	header http.Header
	body   bytes.Buffer
}

func (k *keptResponse) Header() http.Header            { return k.header }
func (k *keptResponse) Write(text []byte) (int, error) { return k.body.Write(text) }
func (k *keptResponse) WriteHeader(int)                {}
