package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
)

// Results does a request at most once for a key, and keeps its result for repeats: *idempotency.Store.
type Results interface {
	Do(
		ctx context.Context, key string, fingerprint []byte, do func() ([]byte, error),
	) (answer []byte, replayed bool, err error)
}

const maxKeyBytes = 255 // of an Idempotency-Key

// idempotent does a request with an Idempotency-Key at most once, on whichever instance it arrives. Requests
// without the header pass through.
func (s *Server) idempotent(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		keys := r.Header.Values("Idempotency-Key")
		if len(keys) == 0 {
			return next(c)
		}
		if err := checkKey(r, keys); err != nil {
			return err
		}
		fingerprint, err := fingerprintOf(c.Response(), r, int64(s.options.MaxMessageBytes+usersSize))
		if err != nil {
			return err
		}
		// The request goes on when its caller gives up: then a repeat with the same key gets the result.
		ctx := context.WithoutCancel(r.Context())
		c.SetRequest(r.WithContext(ctx))
		answer, replayed, err := s.options.Results.Do(ctx, keys[0], fingerprint, func() ([]byte, error) {
			answer, err := record(c, next)
			if errors.Is(err, fanout.ErrUnreachable) {
				err = fmt.Errorf("%w: %w", idempotency.ErrMayHaveHappened, err)
			}
			return answer, err
		})
		if err != nil {
			return err
		}
		if replayed {
			c.Response().Header().Set("Idempotent-Replayed", "true")
		}
		return c.JSONBlob(http.StatusOK, answer)
	}
}

func checkKey(r *http.Request, keys []string) error {
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKeyBytes {
		return problem(http.StatusBadRequest, "bad_idempotency_key",
			"Idempotency-Key: want one, of 1 to %d bytes", maxKeyBytes)
	}
	if isStream(r) {
		return problem(http.StatusBadRequest, "bad_idempotency_key",
			"Idempotency-Key: a stream can't have one; send its lines as requests of their own")
	}
	return nil
}

// fingerprintOf is a hash of method, path, query and body. The body can be read again after it.
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

// record runs a handler and returns the body of its answer. A handler that succeeds answers 200.
func record(c echo.Context, next echo.HandlerFunc) ([]byte, error) {
	response := &recordedResponse{header: http.Header{}}
	defer recordInto(c, response)()
	if err := next(c); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(response.body.Bytes()), nil
}

type recordedResponse struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recordedResponse) Header() http.Header            { return r.header }
func (r *recordedResponse) Write(text []byte) (int, error) { return r.body.Write(text) }
func (r *recordedResponse) WriteHeader(int)                {}
