package handlers

import (
	"context"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"rollcall/presence"
)

const defaultPage = 100 // users, if the caller gives no limit

// Directory answers who is present, on all instances: *presence.Directory.
type Directory interface {
	Lookup(ctx context.Context, users []string) presence.Answer
	Page(ctx context.Context, cursor string, limit int) (presence.Answer, error)
	Count(ctx context.Context) (present int64, asOf presence.Moment, stale bool)
	Instances(ctx context.Context) ([]presence.Record, error)
}

// listPresence answers GET /presence: a page of the users who are present, or with ?user= what is known of
// some.
func (s *Server) listPresence(c echo.Context) error {
	query := c.QueryParams()
	if users := query["user"]; len(users) > 0 {
		return s.lookup(c, "user", users)
	}
	limit := defaultPage
	if given, ok := query["limit"]; ok {
		n, err := strconv.Atoi(given[0])
		if err != nil || n < 1 || n > presence.MaxPage {
			return problem(http.StatusBadRequest, "bad_limit",
				"limit: want a number from 1 to %d, not %q", presence.MaxPage, given[0])
		}
		limit = n
	}
	answer, err := s.options.Directory.Page(c.Request().Context(), query.Get("cursor"), limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

// usersBody is the body of POST /presence.
type usersBody struct {
	Users []string `json:"users"`
}

// lookupPresence answers POST /presence: like GET /presence?user=, for more users than fit into a URL.
func (s *Server) lookupPresence(c echo.Context) error {
	var body usersBody
	if err := readBody(c, usersSize, &body); err != nil {
		return err
	}
	if len(body.Users) == 0 {
		return problem(http.StatusBadRequest, "bad_users", "users: want 1 to %d user ids", presence.MaxLookup)
	}
	return s.lookup(c, "users", body.Users)
}

// lookup answers what is known of some users. field is the name of their list in the request.
func (s *Server) lookup(c echo.Context, field string, users []string) error {
	if len(users) > presence.MaxLookup {
		return problem(http.StatusBadRequest, "bad_users", "%s: want at most %d user ids, not %d",
			field, presence.MaxLookup, len(users))
	}
	for _, user := range users {
		if p := checkUser(field, user); p != nil {
			return p
		}
	}
	return c.JSON(http.StatusOK, s.options.Directory.Lookup(c.Request().Context(), users))
}

// userAnswer is what is known of one user.
type userAnswer struct {
	presence.User
	AsOf  presence.Moment `json:"asOf"`  // when it was known
	Stale bool            `json:"stale"` // see presence.Answer
}

// user answers GET /presence/:user.
func (s *Server) user(c echo.Context) error {
	user, err := userParam(c)
	if err != nil {
		return err
	}
	answer := s.options.Directory.Lookup(c.Request().Context(), []string{user})
	return c.JSON(http.StatusOK, userAnswer{answer.Users[0], answer.AsOf, answer.Stale})
}

// countAnswer says how many users are online or reconnecting.
type countAnswer struct {
	Present int64           `json:"present"`
	AsOf    presence.Moment `json:"asOf"`
	Stale   bool            `json:"stale"`
}

// count answers GET /presence/count.
func (s *Server) count(c echo.Context) error {
	present, asOf, stale := s.options.Directory.Count(c.Request().Context())
	return c.JSON(http.StatusOK, countAnswer{present, asOf, stale})
}
