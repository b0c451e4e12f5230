package handlers

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// tokenFrom finds the token of a request to /ws: in ?token=, or in the Authorization header, with or without
// the word Bearer. Empty: there is none.
func tokenFrom(r *http.Request) (string, error) {
	header, err := authorization(r)
	if err != nil {
		return "", err
	}
	query := r.URL.Query()["token"]
	if len(query) > 1 {
		return "", problem(http.StatusBadRequest, "bad_token",
			"token: given %d times in the query; give one", len(query))
	}
	if len(query) == 0 || query[0] == "" {
		return header, nil
	}
	if header != "" && header != query[0] {
		return "", problem(http.StatusBadRequest, "bad_token",
			"token: the query and the Authorization header have different ones; give one")
	}
	return query[0], nil
}

// authorization reads the credentials in the Authorization header, without the word Bearer. Empty: there is
// no header.
func authorization(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", problem(http.StatusBadRequest, "bad_authorization",
			"Authorization: given %d times; give one", len(values))
	}
	words := strings.Fields(values[0])
	if len(words) > 0 && strings.EqualFold(words[0], "Bearer") {
		words = words[1:]
	}
	switch len(words) {
	case 1:
		return words[0], nil
	case 0:
		return "", problem(http.StatusUnauthorized, "bad_authorization",
			"Authorization: is empty; want Bearer and the credentials, or no header at all")
	default:
		return "", problem(http.StatusUnauthorized, "bad_authorization",
			"Authorization: want Bearer and one word; there are %d", len(words))
	}
}

type keyedContext struct{}

// NoteKeys makes a context for the requests of one connection. keyed becomes true when one of them has a good
// API key.
func NoteKeys(ctx context.Context, keyed *atomic.Bool) context.Context {
	return context.WithValue(ctx, keyedContext{}, keyed)
}

// requireKey refuses requests without one of the API keys.
func requireKey(keys []string) echo.MiddlewareFunc {
	hashes := make([][sha256.Size]byte, len(keys))
	for i, key := range keys {
		hashes[i] = sha256.Sum256([]byte(key))
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			given, err := authorization(c.Request())
			if err != nil {
				return err
			}
			if given == "" {
				return problem(http.StatusUnauthorized, "no_api_key",
					"this route wants the header Authorization: Bearer <API key>")
			}
			hash, good := sha256.Sum256([]byte(given)), 0
			for i := range hashes { // compares with all keys, in constant time: the time taken tells nothing
				good |= subtle.ConstantTimeCompare(hash[:], hashes[i][:])
			}
			if good != 1 {
				return problem(http.StatusUnauthorized, "bad_api_key",
					"the API key in the Authorization header is none of this server's")
			}
			if keyed, ok := c.Request().Context().Value(keyedContext{}).(*atomic.Bool); ok {
				keyed.Store(true)
			}
			return next(c)
		}
	}
}
