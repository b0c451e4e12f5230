package handlers

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"rollcall/fanout"
)

// wantReadableQuery refuses a query that can't be parsed. Go would leave out the part that it can't parse, so
// that DELETE /presence/alice?except=%zz would close all sockets of alice.
func wantReadableQuery(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if query := c.Request().URL.RawQuery; query != "" {
			if _, err := url.ParseQuery(query); err != nil {
				return problem(http.StatusBadRequest, "bad_query",
					"the query can't be read: %v; special characters in a value are percent-encoded", err)
			}
		}
		return next(c)
	}
}

// onlyQuery refuses queries that checkQuery refuses.
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

// checkQuery refuses a query with any other parameter than these, or with one of them twice. A name that ends
// in "..." may come many times. A misspelt ?exept= would otherwise close the very socket that it was to
// spare.
func checkQuery(c echo.Context, names ...string) error {
	if c.Request().URL.RawQuery == "" {
		return nil
	}
	for name, values := range c.QueryParams() {
		once, many := slices.Contains(names, name), slices.Contains(names, name+"...")
		switch {
		case len(names) == 0:
			return problem(http.StatusBadRequest, "bad_query",
				"%.100s: this route takes nothing in the query", name)
		case !once && !many:
			return problem(http.StatusBadRequest, "bad_query", "%.100s: unknown; this route takes %s",
				name, strings.ReplaceAll(strings.Join(names, ", "), "...", ""))
		case len(values) > 1 && !many:
			return problem(http.StatusBadRequest, "bad_query",
				"%s: given %d times; give one", name, len(values))
		}
	}
	return nil
}

// defaultWait is how long a push waits to be sent, and for delivery reports, if the caller gives no timeout.
const defaultWait = 2 * time.Second

var waits = map[string]fanout.Wait{
	"": fanout.Routed, "routed": fanout.Routed, "written": fanout.Written, "acked": fanout.Acked,
}

// waitFrom reads ?wait= and ?timeout=: what the caller waits for, and how long.
func waitFrom(c echo.Context) (fanout.Wait, time.Duration, error) {
	wait, known := waits[c.QueryParam("wait")]
	if !known {
		return 0, 0, problem(http.StatusBadRequest, "bad_wait",
			"wait: want routed, written or acked, not %q", c.QueryParam("wait"))
	}
	given := c.QueryParam("timeout")
	if given == "" {
		return wait, defaultWait, nil
	}
	timeout, err := time.ParseDuration(given)
	if err != nil || timeout <= 0 || timeout > fanout.MaxWait {
		return 0, 0, problem(http.StatusBadRequest, "bad_timeout",
			"timeout: want a duration up to %v, such as 500ms, not %q", fanout.MaxWait, given)
	}
	return wait, timeout, nil
}
