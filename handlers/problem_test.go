package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/presence"
)

func TestProblem_OfEachErrorSaysWhatWasDoneAndWhenToComeAgain(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		code, says string
		comeAgain  bool
	}{
		{fanout.ErrBusy, 503, "busy", "nothing was sent", true},
		{fanout.ErrTooManyRequests, 503, "busy", "nothing was sent", true},
		{fanout.ErrClosing, 503, "draining", "nothing was sent", true},
		{fanout.ErrUnreachable, 503, "redis_unreachable", "may or may not", true},
		{context.DeadlineExceeded, 503, "redis_unreachable", "out of reach", true},
		{context.Canceled, 408, "given_up", "did not wait", false},
		{idempotency.ErrUnreachable, 503, "redis_unreachable", "nothing was sent", true},
		{idempotency.ErrTooManyKeys, 429, "too_many_keys", "nothing was sent", true},
		{idempotency.ErrInProgress, 409, "under_way", "nothing was sent", true},
		{idempotency.ErrKeyReused, 422, "key_reused", "5m0s", false},
		{presence.ErrRedisFull, 503, "redis_full", "nothing was sent", true},
		{presence.ErrCursor, 400, "bad_cursor", "unchanged", false},
		{ErrNoKeys, 503, "no_keys", "try again", true},
		{&http.MaxBytesError{Limit: 7}, 413, "body_too_large", "7 bytes", false},
		{problem(http.StatusServiceUnavailable, "not_ready", "see"), 503, "not_ready", "see", true},
		{errors.New("ours"), 500, "internal", "logged", false},
	} {
		response := httptest.NewRecorder()
		writeProblem(response, problemOf(fmt.Errorf("wrapped: %w", c.err)))
		wantProblem(t, response, c.status, c.code, c.says)
		if after := response.Header().Get("Retry-After"); (after == "1") != c.comeAgain {
			t.Errorf("%v: Retry-After: %q", c.err, after)
		}
	}
}
