package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/handlers/panics"
	"rollcall/handlers/sockets"
	"rollcall/presence"
)

// Problem is an error as clients see it: application/problem+json (RFC 9457).
type Problem struct {
	Status  int      `json:"status"`            // of the HTTP answer
	Title   string   `json:"title"`             // the name of the status
	Code    string   `json:"code"`              // the kind of problem, for programs; docs/api.md lists them
	Detail  string   `json:"detail"`            // for people: what is wrong and how to mend it
	Reasons []string `json:"reasons,omitempty"` // only of GET /readyz
}

// codeBadHandshake is for requests that look like a WebSocket handshake and are not one.
const codeBadHandshake = "bad_handshake"

func (p *Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

func problem(status int, code, format string, args ...any) *Problem {
	return &Problem{
		Status: status, Title: http.StatusText(status), Code: code, Detail: fmt.Sprintf(format, args...),
	}
}

// problems are the answers to errors of other packages. The first that matches counts.
var problems = []struct {
	err     error
	problem *Problem
}{
	{sockets.ErrDraining, errDraining},
	{sockets.ErrFull, problem(http.StatusServiceUnavailable, "full",
		"this instance has as many sockets as it may; connect again in a second, and another may answer")},
	{presence.ErrCursor, problem(http.StatusBadRequest, "bad_cursor",
		"cursor: not one that an earlier page gave; send it back unchanged, or leave it out to start over")},
	{idempotency.ErrInProgress, problem(http.StatusConflict, "under_way",
		"Idempotency-Key: a request with this key is still running, or its result was lost; "+
			"nothing was sent again, ask again in a second")},
	{idempotency.ErrKeyReused, problem(http.StatusUnprocessableEntity, "key_reused",
		"Idempotency-Key: another request used this key within the last %v; use a new key",
		idempotency.KeepFor)},
	{idempotency.ErrTooManyKeys, problem(http.StatusTooManyRequests, "too_many_keys",
		"Idempotency-Key: this instance stores no more results at the moment; nothing was sent, "+
			"try again later, on another instance, or without a key")},
	{presence.ErrRedisFull, problem(http.StatusServiceUnavailable, "redis_full",
		"Idempotency-Key: Redis is full (maxmemory) and can't store the key; nothing was sent, "+
			"give Redis more memory, or try again without a key")},
	{idempotency.ErrUnreachable, problem(http.StatusServiceUnavailable, "redis_unreachable",
		"Idempotency-Key: Redis is out of reach, so nobody can tell whether this request is a repeat; "+
			"nothing was sent, try again in a second")},
	{fanout.ErrBusy, problem(http.StatusServiceUnavailable, "busy",
		"the push queue is full; nothing was sent, try again in a second")},
	{fanout.ErrTooManyRequests, problem(http.StatusServiceUnavailable, "busy",
		"too many requests wait for delivery reports of other instances; nothing was sent, "+
			"try again in a second, or without wait")},
	{fanout.ErrClosing, problem(http.StatusServiceUnavailable, "draining",
		"this instance is shutting down; nothing was sent, try another")},
	{fanout.ErrUnreachable, errUnreachable},
	{context.DeadlineExceeded, errUnreachable},
	{context.Canceled, problem(http.StatusRequestTimeout, "given_up",
		"the client did not wait for the answer")},
	{ErrNoKeys, problem(http.StatusServiceUnavailable, "no_keys",
		"the keys that verify tokens can't be fetched at the moment; try again in a second")},
}

var errDraining = problem(http.StatusServiceUnavailable, "draining",
	"this instance is shutting down; connect again, and another will answer")

var errUnreachable = problem(http.StatusServiceUnavailable, "redis_unreachable",
	"Redis is out of reach, or has just lost its data, and no socket on this instance took it; "+
		"sockets on other instances may or may not get it: try again in a second")

// problemOf maps every error to what the client is told. An error that nothing here names is our own fault:
// the client gets 500 "internal", and answerProblem logs it.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var handshake *sockets.HandshakeError
	if errors.As(err, &handshake) {
		return problem(handshake.Status, codeBadHandshake, "%v", handshake.Reason)
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return problem(http.StatusRequestEntityTooLarge, "body_too_large",
			"the body is larger than %d bytes, which is the limit here", tooLarge.Limit)
	}
	for _, known := range problems {
		if errors.Is(err, known.err) {
			return known.problem
		}
	}
	switch status := statusOf(err); status {
	case 0:
		return problem(http.StatusInternalServerError, "internal",
			"something went wrong here, and was logged")
	case http.StatusNotFound:
		return problem(http.StatusNotFound, "not_found", "there is nothing at this path")
	case http.StatusMethodNotAllowed:
		return problem(http.StatusMethodNotAllowed, "method_not_allowed",
			"this path does not take this method; the Allow header lists those it takes")
	default:
		return problem(status, "refused", "%v", err)
	}
}

// answerProblem is Echo's error handler.
func answerProblem(log *slog.Logger) func(echo.Context, error) {
	return func(c echo.Context, err error) {
		if c.Response().Committed {
			return
		}
		p := problemOf(err)
		if p.Status == http.StatusInternalServerError {
			log.Error("request", "method", c.Request().Method, "route", c.Path(), "error", err)
		}
		if p.Status == http.StatusUnauthorized && c.Request().ContentLength != 0 {
			// net/http reads the rest of the body before it answers, so a caller without a key could hold a
			// connection by sending slowly
			c.Response().Header().Set("Connection", "close")
		}
		writeProblem(c.Response(), p)
	}
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusConflict:
		header.Set("Retry-After", "1") // seconds
	}
	w.WriteHeader(p.Status)
	text := json.NewEncoder(w)
	text.SetEscapeHTML(false) // people read it in terminals, and it is no HTML
	_ = text.Encode(p)        // fails only if the client is gone
}

// recoverPanics makes a panic in one request an error of that request alone.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error { return panics.Catch(func() error { return next(c) }) }
}
