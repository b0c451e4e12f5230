package handlers

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
)

// What is particular to this major version of Echo stands in this file, so that the next one is a day's work.

// newEcho makes an Echo that answers errors as problems. What Echo would log itself nobody needs: answerProblem logs what is our fault.
func newEcho(answer func(echo.Context, error)) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) { answer(c, err) }
	e.Logger.SetOutput(io.Discard)
	return e
}

// userParam reads the user id in the path. A slash in it must be percent-encoded: Echo lets the last parameter have raw ones, so that
// /push/alice/ would push to the user "alice/", and say 200.
func userParam(c echo.Context) (string, error) {
	user := c.Param("user")
	if strings.Contains(user, "/") {
		return "", problem(http.StatusBadRequest, "bad_user", "the path: there is a / too many; in a user id, write it as %%2F")
	}
	if c.Request().URL.RawPath != "" { // otherwise it is unescaped already
		var err error
		if user, err = url.PathUnescape(user); err != nil {
			return "", problem(http.StatusBadRequest, "bad_user", "the path can't be read: %v; what is special in a user id is percent-encoded", err)
		}
	}
	if p := checkUser("the path", user); p != nil {
		return "", p
	}
	return user, nil
}

// statusOf is the HTTP status of an error of Echo's own; 0: it is none.
func statusOf(err error) int {
	if e := (*echo.HTTPError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// recordInto has what is answered from here on written to w, until the returned function is called.
func recordInto(c echo.Context, w http.ResponseWriter) (end func()) {
	real := c.Response()
	c.SetResponse(echo.NewResponse(w, c.Echo()))
	return func() { c.SetResponse(real) }
}
