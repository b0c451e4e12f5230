package handlers

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"rollcall/presence"
)

// auditor lets instances compare their own sockets with Redis.
type auditor interface {
	Audit(ctx context.Context, instances []string) (audits []presence.Audit, unanswered []string, err error)
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
	records, err := s.options.Directory.Instances(ctx)
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
