package handlers

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"time"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"rollcall/handlers/strict"
)

const (
	// clockLeeway is how far the issuer's clock may differ from ours when exp and nbf are checked.
	clockLeeway = time.Second
	// issuedLeeway is the same for iat. It is wider, since iat only has to be plausible.
	issuedLeeway = time.Minute
	// lastTime is the end of the year 9999, in seconds since 1970. A date after it is milliseconds by
	// mistake.
	lastTime = 253402300799
)

// claims are the claims of a token. Their names are case-sensitive, and none may come twice, so that every
// other verifier of this token, in any language, reads the same user in it.
type claims struct {
	subject, issuer              string
	audience                     jwt.ClaimStrings
	expires, notBefore, issuedAt *jwt.NumericDate
}

// claimFault is an error that says what is wrong with a claim, for the owner of the token.
type claimFault string

func (f claimFault) Error() string { return string(f) }

// UnmarshalJSON reads the claims strictly. Package jwt calls encoding/json, which passes the text here
// unchanged.
func (c *claims) UnmarshalJSON(text []byte) error {
	var read struct {
		Subject   jsontext.Value `json:"sub"`
		Issuer    string         `json:"iss"`
		Audience  jsontext.Value `json:"aud"`
		Expires   *float64       `json:"exp"`
		NotBefore *float64       `json:"nbf"`
		IssuedAt  *float64       `json:"iat"`
	}
	if fault := strict.Decode(text, &read); fault != "" {
		return claimFault(fault)
	}
	c.issuer = read.Issuer
	var errs [5]error
	c.subject, errs[0] = subject(read.Subject)
	c.audience, errs[1] = audience(read.Audience)
	c.expires, errs[2] = numericDate("exp", read.Expires)
	c.notBefore, errs[3] = numericDate("nbf", read.NotBefore)
	c.issuedAt, errs[4] = numericDate("iat", read.IssuedAt)
	return cmp.Or(errs[:]...) // the first
}

// subject reads a user id. It refuses half of a surrogate pair: see loneSurrogateIn.
func subject(value jsontext.Value) (user string, err error) {
	switch kind := value.Kind(); {
	case len(value) == 0, kind == jsontext.KindNull:
		return "", nil
	case kind != jsontext.KindString:
		return "", claimFault("sub: want a string, not " + strict.KindName(kind))
	}
	if err := strictjson.Unmarshal(value, &user); err != nil {
		return "", claimFault("sub: a user id is UTF-8; this one has half of a surrogate pair")
	}
	return user, nil
}

// audience reads a string, or an array of strings.
func audience(value jsontext.Value) (jwt.ClaimStrings, error) {
	if len(value) > 0 && value.Kind() == jsontext.KindString {
		value = append(append(jsontext.Value("["), value...), ']')
	}
	var audiences []string
	if len(value) == 0 {
		return nil, nil
	}
	if err := strictjson.Unmarshal(value, &audiences, jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, claimFault("aud: want a string, or an array of strings")
	}
	return audiences, nil
}

// numericDate makes a date of seconds since 1970. nil, which is also what null in JSON becomes: there is
// none.
func numericDate(name string, seconds *float64) (*jwt.NumericDate, error) {
	if seconds == nil {
		return nil, nil
	}
	if math.Abs(*seconds) > lastTime {
		return nil, claimFault(name + ": is beyond the year 9999; want seconds since 1970, not milliseconds")
	}
	whole, part := math.Modf(*seconds)
	return jwt.NewNumericDate(time.Unix(int64(whole), int64(part*float64(time.Second)))), nil
}

// The methods of jwt.Claims.

func (c *claims) GetSubject() (string, error)                  { return c.subject, nil }
func (c *claims) GetIssuer() (string, error)                   { return c.issuer, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.audience, nil }
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.expires, nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.notBefore, nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.issuedAt, nil }

// Validate is called by package jwt after its own checks.
func (c *claims) Validate() error {
	if c.issuedAt != nil && time.Until(c.issuedAt.Time) > issuedLeeway {
		return jwt.ErrTokenUsedBeforeIssued
	}
	return nil
}

// headerFault says what is wrong with the header of a token; empty if nothing is. Package jwt is less strict:
// of several fields of one name it takes the last, and it ignores crit and line breaks.
func headerFault(token string) string {
	encoded, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(token, "\r\n") {
		return notJWT
	}
	var header struct {
		Algorithm string         `json:"alg"`
		KeyID     *string        `json:"kid"`
		Critical  jsontext.Value `json:"crit"`
	}
	if fault := strict.Decode(text, &header); fault != "" {
		return notJWT + ": in its header, " + fault
	}
	if header.Critical != nil {
		// RFC 7515, section 4.1.11
		return fmt.Sprintf("wants extensions (crit: %.100s) that are not known here", header.Critical)
	}
	return ""
}

const notJWT = "is not a JWT"
