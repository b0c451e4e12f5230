package handlers

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// IsLoopback says whether a name or an address is this machine's own, which nobody else can be made to mean.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// HostOf is the name in a Host header, without the port.
func HostOf(r *http.Request) string { return (&url.URL{Host: r.Host}).Hostname() }

// onlyHosts answers only requests that name one of these hosts, or this machine. A page of another site can
// make its own name point here, and would then read answers as if they were its own. Health is told to
// everybody: probes call an instance by its address.
func onlyHosts(allowed []string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			host := HostOf(c.Request())
			known := IsLoopback(host) || slices.ContainsFunc(allowed, func(name string) bool { return strings.EqualFold(name, host) })
			if path := c.Path(); !known && path != "/healthz" && path != "/readyz" {
				return problem(http.StatusForbidden, "bad_host",
					"Host: this server does not answer to %q; its operator can allow the name with --allowed-hosts", host)
			}
			return next(c)
		}
	}
}

// forwarding are the headers by which a proxy tells that a request is not its own.
var forwarding = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}

// onlyNear answers only requests of this machine: not what a proxy on it passes on, and not what pages of
// other sites ask for.
func onlyNear(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if host := HostOf(r); !IsLoopback(host) {
			return problem(http.StatusForbidden, "bad_host", "dev mode answers only on localhost, not on %q", host)
		}
		for _, name := range forwarding {
			if len(r.Header.Values(name)) > 0 {
				return problem(http.StatusForbidden, "forwarded", "dev mode answers nobody behind a proxy: the request has the header %s", name)
			}
		}
		if peer, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !IsLoopback(peer) {
			return problem(http.StatusForbidden, "forwarded", "dev mode answers only this machine")
		}
		return next(c)
	}
}
