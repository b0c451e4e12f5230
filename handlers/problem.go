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
	"rollcall/presence"
)

// Problem is an error as the client gets it: application/problem+json (RFC 9457).
type Problem struct {
	Status  int      `json:"status"`
	Title   string   `json:"title"`             // of the status
	Code    string   `json:"code"`              // of this kind of problem, for programs
	Detail  string   `json:"detail"`            // what is wrong and how to mend it, for people
	Reasons []string `json:"reasons,omitempty"` // of /readyz
}

// codeBadHandshake is for requests that are no handshake of a WebSocket, though they seem to be one.
const codeBadHandshake = "bad_handshake"

func (p *Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

func problem(status int, code, format string, args ...any) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Code: code, Detail: fmt.Sprintf(format, args...)}
}

// problemOf maps every error to what the client is told. What is our fault, and so no news to the client, is 500.
func problemOf(err error) *Problem {
	var p *Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, presence.ErrCursor):
		return problem(http.StatusBadRequest, "bad_cursor", "cursor: %v; give it back unchanged, or leave it out to begin again", err)
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than the %d bytes allowed here", tooLarge.Limit)
	case errors.Is(err, idempotency.ErrInProgress):
		return problem(http.StatusConflict, "under_way", "Idempotency-Key: a request with this key is under way, or its outcome was lost; nothing was sent again. Ask again in a second for its answer")
	case errors.Is(err, idempotency.ErrKeyReused):
		return problem(http.StatusUnprocessableEntity, "key_reused", "Idempotency-Key: this key came with another request within %v; take a new one", idempotency.KeepFor)
	case errors.Is(err, idempotency.ErrTooManyKeys):
		return problem(http.StatusTooManyRequests, "too_many_keys",
			"Idempotency-Key: this instance remembers as many answers as it may; nothing was sent, try again later, on another instance, or without a key")
	case errors.Is(err, presence.ErrRedisFull):
		return problem(http.StatusServiceUnavailable, "redis_full",
			"Idempotency-Key: Redis is full (maxmemory), and can't remember that this request came; nothing was sent. "+
				"Give Redis more memory, or try again without a key")
	case errors.Is(err, idempotency.ErrUnreachable):
		return problem(http.StatusServiceUnavailable, "redis_unreachable",
			"Idempotency-Key: Redis is out of reach, which alone knows whether a request with this key came before; nothing was sent, try again in a second")
	case errors.Is(err, fanout.ErrBusy):
		return problem(http.StatusServiceUnavailable, "busy", "as many pushes as may are waiting for Redis; nothing was sent, try again in a second")
	case errors.Is(err, fanout.ErrAsking):
		return problem(http.StatusServiceUnavailable, "busy",
			"as many requests as may are waiting to hear from other instances what became of theirs; nothing was sent, try again in a second, or without wait")
	case errors.Is(err, fanout.ErrClosing):
		return problem(http.StatusServiceUnavailable, "draining", "this instance is shutting down; nothing was sent, try another")
	case errors.Is(err, fanout.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, "redis_unreachable",
			"Redis is out of reach or has just lost what it held, and no socket on this instance took it; sockets on other instances may or may not have: try again in a second")
	case errors.Is(err, context.Canceled):
		return problem(http.StatusRequestTimeout, "given_up", "the client did not wait for the answer")
	case errors.Is(err, ErrNoKeys):
		return problem(http.StatusServiceUnavailable, "no_keys", "the keys that verify tokens can't be fetched at the moment; try again in a second")
	case statusOf(err) == http.StatusNotFound:
		return problem(http.StatusNotFound, "not_found", "there is nothing at this path")
	case statusOf(err) == http.StatusMethodNotAllowed:
		return problem(http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take this method; the Allow header says which it does")
	case statusOf(err) != 0:
		return problem(statusOf(err), "refused", "%v", err)
	default:
		return problem(http.StatusInternalServerError, "internal", "something went wrong here, and was logged")
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
			// net/http would wait for the body before it answers: so who has no key could hold a connection
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
	_ = text.Encode(p)        // the client may be gone: there is nobody left to tell
}

// recoverPanics makes a panic in one request a problem of that request alone.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicked(p)
			}
		}()
		return next(c)
	}
}

// panicked makes an error of what was recovered.
func panicked(p any) error { return fmt.Errorf("panic: %v\n%s", p, stack()) }
