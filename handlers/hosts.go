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

// IsLoopback reports whether a host is localhost or a loopback address, such as 127.0.0.1 or ::1.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// HostOf returns the host that a request names in its Host header, without the port.
func HostOf(r *http.Request) string { return (&url.URL{Host: r.Host}).Hostname() }

// onlyHosts refuses requests whose Host is neither in the list nor a loopback. It stops DNS rebinding: a page
// of another site may let its own name point to this server, and could then read the answers. Health checks
// pass with any Host, since probes call an instance by its address.
func onlyHosts(allowed []string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			host := HostOf(c.Request())
			good := IsLoopback(host) ||
				slices.ContainsFunc(allowed, func(name string) bool { return strings.EqualFold(name, host) })
			if path := c.Path(); !good && path != "/healthz" && path != "/readyz" {
				return problem(http.StatusForbidden, "bad_host", "Host: this server does not answer to %q; "+
					"its operator can allow the name with --allowed-hosts", host)
			}
			return next(c)
		}
	}
}

// proxyHeaders are the headers that proxies add to the requests they pass on.
var proxyHeaders = []string{
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via",
}

// onlyLocal refuses requests that come from another machine, through a proxy on this one, or from a page of
// another site (see onlyHosts).
func onlyLocal(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if host := HostOf(r); !IsLoopback(host) {
			return problem(http.StatusForbidden, "bad_host",
				"dev mode answers only on localhost, not on %q", host)
		}
		for _, name := range proxyHeaders {
			if len(r.Header.Values(name)) > 0 {
				return problem(http.StatusForbidden, "forwarded",
					"dev mode does not answer through a proxy: the request has the header %s", name)
			}
		}
		if peer, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !IsLoopback(peer) {
			return problem(http.StatusForbidden, "forwarded", "dev mode answers only this machine")
		}
		return next(c)
	}
}

// originAllowed reports whether a page may connect: one of our own host, or of an allowed origin. A request
// without an Origin comes from no browser, and may.
func originAllowed(r *http.Request, allowed []string) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(allowed, origin) || slices.Contains(allowed, "*") {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && ownOrigin(r, u)
}

// ownOrigin reports whether an origin is our own host. For an http:// origin, the request must have come
// without TLS. For an https:// origin it may have come either way: a proxy may have ended the TLS.
func ownOrigin(r *http.Request, origin *url.URL) bool {
	if origin.Scheme != "https" && (origin.Scheme != "http" || r.TLS != nil) {
		return false
	}
	// browsers leave the usual port out, proxies may add it
	port := map[string]string{"http": "80", "https": "443"}[origin.Scheme]
	host := &url.URL{Host: r.Host}
	return strings.EqualFold(origin.Hostname(), host.Hostname()) &&
		cmp.Or(origin.Port(), port) == cmp.Or(host.Port(), port)
}
