package handlers

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
)

// This file has all that is particular to this major version of Echo.

// newEcho makes an Echo that answers errors as problems. It logs nothing itself: answerProblem does.
func newEcho(answer func(echo.Context, error)) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) { answer(c, err) }
	e.Logger.SetOutput(io.Discard)
	return e
}

// userParam reads the user id in the path. A slash in it must be percent-encoded. Echo lets the last
// parameter have raw ones, so /push/alice/ would push to a user "alice/", and answer 200.
func userParam(c echo.Context) (string, error) {
	user := c.Param("user")
	if strings.Contains(user, "/") {
		return "", problem(http.StatusBadRequest, "bad_user",
			"the path: has a / too many; in a user id, write it as %%2F")
	}
	if c.Request().URL.RawPath != "" { // then Echo has matched the escaped path
		var err error
		if user, err = url.PathUnescape(user); err != nil {
			return "", problem(http.StatusBadRequest, "bad_user",
				"the path can't be read: %v; special characters in a user id are percent-encoded", err)
		}
	}
	if p := checkUser("the path", user); p != nil {
		return "", p
	}
	return user, nil
}

// statusOf is the HTTP status of an error that Echo made; 0 for other errors.
func statusOf(err error) int {
	if e := (*echo.HTTPError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// recordInto redirects the response to w until end is called.
func recordInto(c echo.Context, w http.ResponseWriter) (end func()) {
	real := c.Response()
	c.SetResponse(echo.NewResponse(w, c.Echo()))
	return func() { c.SetResponse(real) }
}
