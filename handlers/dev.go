package handlers

import (
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"
)

// devTokenLife is how long a token of dev mode is good: a working day.
const devTokenLife = 12 * time.Hour

// Dev is development mode: it gives the page, on this machine alone, tokens for any user and the API key.
type Dev struct {
	Secret   string // signs the tokens
	APIKey   string // for the page; empty: the user of the page must type it in
	Issuer   string // of tokens; optional
	Audience string // of tokens; optional
}

// Token makes a token for a user. It is good for 12 hours.
func (d *Dev) Token(user string) (string, error) {
	now := time.Now()
	claims := jwt.RegisteredClaims{
		Subject: user, Issuer: d.Issuer,
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(devTokenLife)),
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

// keyAnswer shows the page that this is dev mode, and the API key.
type keyAnswer struct {
	APIKey *string `json:"apiKey"` // null: the page may not have it
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
