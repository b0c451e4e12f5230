package main

import (
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"

	"rollcall/app/jwks"
)

// checkNames refuses origins and hosts that no request could ever have, and URLs that can't be used. The
// error says what they should look like.
func (c *Config) checkNames() error {
	for _, origin := range c.AllowedOrigins {
		if problem := originProblem(origin); problem != "" {
			return refuse("allowed-origins", origin, problem)
		}
	}
	for _, host := range c.AllowedHosts {
		if !isHost(host) {
			return refuse("allowed-hosts", host,
				"want a name or an address as in a Host header, without scheme, port and path")
		}
	}
	if c.JWKSURL != "" {
		_, err := keysURL(c.JWKSURL)
		return err
	}
	return nil
}

// keysURL parses the URL of a JWKS.
func keysURL(given string) (*url.URL, error) {
	u, err := url.Parse(given)
	if err != nil { // it may quote a password
		return nil, refuse("jwks-url", "", "is no URL")
	}
	if !jwks.IsSafe(u) {
		return nil, refuse("jwks-url", u.Redacted(),
			"want https://, or http:// on localhost: elsewhere anybody on the way could change the keys")
	}
	return u, nil
}

// originProblem says why no page can have this origin; empty if one can. Browsers send an origin in one form
// only, and it is compared byte by byte.
func originProblem(origin string) string {
	if origin == "*" {
		return ""
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(u.Host, "*") {
		return "want scheme://host or scheme://host:port, or * alone for any: a part of it can't be left open"
	}
	switch u.Scheme {
	case "ws", "wss", "ftp", "file":
		return "no page has such an origin: want https:// or http://, where the page comes from"
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return "want the host in ASCII, as browsers send it (xn--…)"
	}
	if sent := sentOrigin(u); sent != origin {
		return "want scheme://host or scheme://host:port as browsers send it: " + sent
	}
	return ""
}

// sentOrigin is the form in which browsers send an origin: in lower case, and without the scheme's default
// port, a path or a user.
func sentOrigin(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + ip.String() + "]"
	}
	if port == defaultPorts[u.Scheme] {
		port = ""
	}
	if port != "" {
		host += ":" + port
	}
	return u.Scheme + "://" + host
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// isHost reports whether a request may name this host, as handlers.HostOf finds it.
func isHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String() == host
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r >= utf8.RuneSelf || strings.ContainsRune(":/@?#*[]\\", r)
	})
}
