package handlers

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// onlyQuery refuses a query that has anything else than these, or one of them twice, unless its name ends in "..." here: a slip would
// reach other sockets than were meant, or tell of other users.
func onlyQuery(names ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := checkQuery(c, names...); err != nil {
				return err
			}
			return next(c)
		}
	}
}

func checkQuery(c echo.Context, names ...string) error {
	if c.Request().URL.RawQuery == "" {
		return nil
	}
	for name, values := range c.QueryParams() {
		once, many := slices.Contains(names, name), slices.Contains(names, name+"...")
		switch {
		case len(names) == 0:
			return problem(http.StatusBadRequest, "bad_query", "%.100s: this path and method take nothing in the query", name)
		case !once && !many:
			return problem(http.StatusBadRequest, "bad_query", "%.100s: nothing of that name is known here; there is %s",
				name, strings.ReplaceAll(strings.Join(names, ", "), "...", ""))
		case len(values) > 1 && !many:
			return problem(http.StatusBadRequest, "bad_query", "%s: given %d times; give one", name, len(values))
		}
	}
	return nil
}

// wantQuery refuses a query that can't be read: parts of it would be left out without a word.
func wantQuery(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if query := c.Request().URL.RawQuery; query != "" {
			if _, err := url.ParseQuery(query); err != nil {
				return problem(http.StatusBadRequest, "bad_query", "the query can't be read: %v; what is special in a value is percent-encoded", err)
			}
		}
		return next(c)
	}
}
