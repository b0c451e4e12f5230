package handlers

import (
	"cmp"
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

// originAllowed says whether a browser's page may connect: one from our own host, or from an allowed origin.
func originAllowed(r *http.Request, allowed []string) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(allowed, origin) || slices.Contains(allowed, "*") {
		return true // without an Origin it is not a browser
	}
	u, err := url.Parse(origin)
	return err == nil && ownOrigin(r, u)
}

// ownOrigin says whether a page is one of ours. Whether the browser came with TLS is known only if it ends here: a proxy may have ended it.
func ownOrigin(r *http.Request, origin *url.URL) bool {
	if origin.Scheme != "https" && (origin.Scheme != "http" || r.TLS != nil) {
		return false
	}
	usual := map[string]string{"http": "80", "https": "443"}[origin.Scheme] // which a browser leaves out, and a proxy may not
	host := &url.URL{Host: r.Host}
	return strings.EqualFold(origin.Hostname(), host.Hostname()) && cmp.Or(origin.Port(), usual) == cmp.Or(host.Port(), usual)
}
