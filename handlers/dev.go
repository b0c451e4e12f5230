package handlers

import (
	"net"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"
)

// devTokenTime is how long a token of dev mode is good: a working day.
const devTokenTime = 12 * time.Hour

// Dev gives anybody on this machine what the page needs to be any user, and to push.
type Dev struct {
	Secret   string // tokens are signed with
	APIKey   string
	Issuer   string // of tokens; empty: they have none
	Audience string
}

// Token makes a token for a user.
func (d *Dev) Token(user string) (string, error) {
	now := time.Now()
	claims := jwt.RegisteredClaims{
		Subject: user, Issuer: d.Issuer, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(devTokenTime)),
	}
	if d.Audience != "" {
		claims.Audience = jwt.ClaimStrings{d.Audience}
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(d.Secret))
}

// token answers GET /dev/token.
func (d *Dev) token(c echo.Context) error {
	user := c.QueryParam("user")
	if p := checkUser("user", user); p != nil {
		return p
	}
	token, err := d.Token(user)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]string{"token": token})
}

// key answers GET /dev/key.
func (d *Dev) key(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]string{"apiKey": d.APIKey})
}

// onlyLoopbackHosts keeps pages of other sites out, which could make their own name point here and read the answers.
func onlyLoopbackHosts(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		host, _, err := net.SplitHostPort(c.Request().Host)
		if err != nil {
			host = c.Request().Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return problem(http.StatusForbidden, "bad_host", "dev mode answers only on localhost, not on %q", host)
		}
		return next(c)
	}
}
