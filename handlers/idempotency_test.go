package handlers

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
)

// doEach does every request, and keeps the last error.
type doEach struct{ err error }

func (d *doEach) Do(_ context.Context, _ string, _ []byte, do func() ([]byte, error)) ([]byte, bool, error) {
	answer, err := do()
	d.err = err
	return answer, false, err
}

func TestIdempotent_TellsErrorsAfterWhichAPushMayHaveBeenSent(t *testing.T) {
	for err, mayHaveHappened := range map[error]bool{
		fanout.ErrUnreachable:     true,
		fanout.ErrBusy:            false,
		fanout.ErrTooManyRequests: false,
		fanout.ErrClosing:         false,
		context.Canceled:          false,
	} {
		results := &doEach{}
		s := &Server{options: Options{Results: results, MaxMessageBytes: 100}}
		r := httptest.NewRequest("POST", "/push/alice", strings.NewReader("{}"))
		r.Header.Set("Idempotency-Key", "k")
		handler := s.idempotent(func(echo.Context) error { return err })
		if got := handler(echo.New().NewContext(r, httptest.NewRecorder())); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		if got := errors.Is(results.err, idempotency.ErrMayHaveHappened); got != mayHaveHappened {
			t.Errorf("%v: may have happened: %v", err, got)
		}
	}
}
