package handlers

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"rollcall/presence"
)

const defaultPage = 100 // users, if the caller gives no limit

// presenceReader answers who is present, on all instances.
type presenceReader interface {
	Lookup(ctx context.Context, users []string) presence.Answer
	Page(ctx context.Context, cursor string, limit int) (presence.Answer, error)
	Count(ctx context.Context) (present int64, asOf presence.Moment, stale bool)
	Instances(ctx context.Context) ([]presence.Record, error)
}

// auditor lets instances compare their own sockets with Redis.
type auditor interface {
	Audit(ctx context.Context, instances []string) (audits []presence.Audit, unanswered []string, err error)
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
	answer, err := s.options.Presence.Page(c.Request().Context(), query.Get("cursor"), limit)
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
	return c.JSON(http.StatusOK, s.options.Presence.Lookup(c.Request().Context(), users))
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
	answer := s.options.Presence.Lookup(c.Request().Context(), []string{user})
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
	present, asOf, stale := s.options.Presence.Count(c.Request().Context())
	return c.JSON(http.StatusOK, countAnswer{present, asOf, stale})
}

// instances answers GET /instances.
func (s *Server) instances(c echo.Context) error {
	records, err := s.listInstances(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"instances": records})
}

func (s *Server) listInstances(ctx context.Context) ([]presence.Record, error) {
	records, err := s.options.Presence.Instances(ctx)
	if err != nil {
		return nil, problem(http.StatusServiceUnavailable, "redis_unreachable",
			"Redis is out of reach, and only Redis knows the instances; try again in a second")
	}
	return records, nil
}

// auditAnswer says how far Redis differs from the instances' own maps of sockets.
type auditAnswer struct {
	Instances  []presence.Audit `json:"instances"`
	Unanswered []string         `json:"unanswered"` // live instances that did not answer in time
}

// auditTime is how long GET /audit waits for instances.
const auditTime = 20 * time.Second

// audit answers GET /audit: every live instance compares its own map with Redis, and repairs what differs.
func (s *Server) audit(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), auditTime)
	defer cancel()
	records, err := s.listInstances(ctx)
	if err != nil {
		return err
	}
	var live []string
	for _, record := range records {
		if record.State == "live" || record.State == "draining" {
			live = append(live, record.ID)
		}
	}
	if !slices.Contains(live, s.options.Instance) {
		live = append(live, s.options.Instance) // its lease may have expired, but it is here and can answer
	}
	audits, unanswered, err := s.options.Bus.Audit(ctx, live)
	if err != nil {
		return err
	}
	slices.SortFunc(audits, func(a, b presence.Audit) int { return strings.Compare(a.Instance, b.Instance) })
	return c.JSON(http.StatusOK, auditAnswer{ // as JSON, a nil slice would be null
		append([]presence.Audit{}, audits...), append([]string{}, unanswered...),
	})
}

// healthz answers GET /healthz: the process lives.
func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "alive"})
}

// readyAnswer says that this instance should get traffic.
type readyAnswer struct {
	Status   string   `json:"status"`             // "ready"
	Warnings []string `json:"warnings,omitempty"` // what is wrong all the same, in words
}

// readyz answers GET /readyz: whether this instance should get traffic. Redis out of reach is only a
// warning. It is usually out of reach for all instances, and then none would be left to take sockets, which
// work without it.
func (s *Server) readyz(c echo.Context) error {
	var reasons []string
	if s.draining.Load() {
		reasons = append(reasons, "draining")
	}
	if reason := s.options.Bus.NotReadyReason(); reason != "" {
		reasons = append(reasons, reason)
	}
	if len(reasons) > 0 {
		p := problem(http.StatusServiceUnavailable, "not_ready",
			"this instance should get no traffic now: see reasons")
		p.Reasons = reasons
		return p
	}
	answer := readyAnswer{Status: "ready"}
	if warning := s.options.Mirror.NotReadyReason(); warning != "" {
		answer.Warnings = []string{warning}
	}
	return c.JSON(http.StatusOK, answer)
}
