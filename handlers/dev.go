package handlers

import (
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
	APIKey   string // for the page; empty: it must be typed in, for it was given to this server and not made up
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

// keyAnswer tells the page that this is dev mode, and the API key if the page may have it.
type keyAnswer struct {
	APIKey *string `json:"apiKey"`
}

// key answers GET /dev/key.
func (d *Dev) key(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	var answer keyAnswer
	if d.APIKey != "" {
		answer.APIKey = &d.APIKey
	}
	return c.JSON(http.StatusOK, answer)
}
