package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// readiness says, in words, why a part of this instance does not work as it should; empty if it does. For the
// bus this makes the instance not ready; for the mirror it is only a warning: see readyz.
type readiness interface{ NotReadyReason() string }

// Readiness says why an instance should get no traffic.
type Readiness struct {
	Draining     bool
	NotReceiving bool // its subscriptions do not work: it does not get what other instances send it
}

// Ready reports whether there is no reason.
func (r Readiness) Ready() bool { return !r.Draining && !r.NotReceiving }

// Readiness is what GET /readyz answers, as values.
func (s *Server) Readiness() Readiness {
	return Readiness{Draining: s.draining.Load(), NotReceiving: s.options.Bus.NotReadyReason() != ""}
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
