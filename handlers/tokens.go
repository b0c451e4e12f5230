package handlers

import (
	"context"
	"errors"
	"net/http"

	"github.com/golang-jwt/jwt/v5"
)

// Tokens verifies the tokens (JWTs) of clients.
type Tokens struct {
	// static after construction
	parser *jwt.Parser
	keys   TokenOptions
}

// TokenOptions say which tokens are good. At least one of Secrets, PublicKey and KeySet is required; the rest
// is optional.
type TokenOptions struct {
	Secrets    []string // for HMAC; a token signed with any of them is good
	PublicKey  any      // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	KeySet     KeySet   // of a JWKS
	Issuer     string   // empty: not checked
	Audience   string   // empty: not checked
	RequireExp bool     // refuse tokens that never expire
}

// KeySet finds the keys that may have signed a token with this key id (kid; empty if the token has none) and
// algorithm (alg). The error is ErrUnknownKey if there are none, and ErrNoKeys if the keys can't be fetched
// at the moment.
type KeySet func(ctx context.Context, kid, alg string) ([]jwt.VerificationKey, error)

var (
	// ErrNoKeys is returned by a KeySet that could not be fetched.
	ErrNoKeys = errors.New("handlers: no keys to verify tokens with")
	// ErrUnknownKey is returned by a KeySet that does not have the key.
	ErrUnknownKey = errors.New("handlers: unknown key")
)

var (
	hmacMethods      = []string{"HS256", "HS384", "HS512"}
	publicKeyMethods = []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
)

// NewTokens makes a verifier. It accepts HMAC only if there are secrets, and other algorithms only if there
// are public keys: so nobody can sign with the text of a public key as an HMAC secret.
func NewTokens(o TokenOptions) *Tokens {
	options := []jwt.ParserOption{jwt.WithLeeway(clockLeeway), jwt.WithStrictDecoding()}
	var methods []string
	if len(o.Secrets) > 0 {
		methods = append(methods, hmacMethods...)
	}
	if o.PublicKey != nil || o.KeySet != nil {
		methods = append(methods, publicKeyMethods...)
	}
	options = append(options, jwt.WithValidMethods(methods))
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	if o.RequireExp {
		options = append(options, jwt.WithExpirationRequired())
	}
	return &Tokens{parser: jwt.NewParser(options...), keys: o}
}

// keysFor returns all keys that may have signed a token. There may be some even if there is an error, which
// says that others could not be had.
func (o TokenOptions) keysFor(
	ctx context.Context, token *jwt.Token,
) (keys jwt.VerificationKeySet, err error) {
	if _, ok := token.Method.(*jwt.SigningMethodHMAC); ok {
		for _, secret := range o.Secrets {
			keys.Keys = append(keys.Keys, []byte(secret))
		}
		return keys, nil
	}
	if o.KeySet != nil {
		kid, _ := token.Header["kid"].(string)
		keys.Keys, err = o.KeySet(ctx, kid, token.Method.Alg())
	}
	if o.PublicKey != nil {
		keys.Keys = append(keys.Keys, o.PublicKey)
	}
	return keys, err
}

// User verifies a token and returns its subject (sub). It may wait for a key to be fetched that was not seen
// before. The error is a *Problem with the code "bad_token", ErrNoKeys, or the context's.
func (t *Tokens) User(ctx context.Context, token string) (string, error) {
	if fault := headerFault(token); fault != "" {
		return "", badToken(fault)
	}
	var c claims
	var keysErr error
	_, err := t.parser.ParseWithClaims(token, &c, func(token *jwt.Token) (any, error) {
		var keys jwt.VerificationKeySet
		if keys, keysErr = t.keys.keysFor(ctx, token); len(keys.Keys) == 0 {
			return nil, keysErr
		}
		return keys, nil
	})
	switch {
	case err == nil:
	case errors.Is(keysErr, ErrNoKeys) &&
		(errors.Is(err, ErrNoKeys) || errors.Is(err, jwt.ErrTokenSignatureInvalid)):
		return "", ErrNoKeys // the right key may be among those that could not be fetched
	case errors.Is(keysErr, context.Canceled):
		return "", keysErr // the client is gone, which says nothing about its token
	default:
		return "", badToken(tokenFault(err))
	}
	if p := checkUser("the token's sub", c.subject); p != nil {
		return "", problem(http.StatusUnauthorized, "bad_token", "%s", p.Detail)
	}
	return c.subject, nil
}

func badToken(fault string) error {
	return problem(http.StatusUnauthorized, "bad_token", "the token %s", fault)
}

// tokenFault says what is wrong with a token. The words help its owner, and tell nobody what would be
// accepted.
func tokenFault(err error) string {
	var claim claimFault
	switch {
	case errors.As(err, &claim):
		return "has claims that can't be used: " + string(claim)
	case errors.Is(err, jwt.ErrTokenMalformed):
		return notJWT
	case errors.Is(err, jwt.ErrTokenExpired):
		return "has expired; get a new one"
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return "is not valid yet; compare the clocks"
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "has another issuer (iss) than is wanted here"
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return "is for another audience (aud)"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return "lacks a claim that is wanted here: exp, iss or aud"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return "can't be trusted: its signature does not verify here; " +
			"it was made with another key, or the algorithm (alg) is not accepted"
	case errors.Is(err, ErrUnknownKey):
		return "is signed with a key (kid) that is not published where this server looks, " +
			"or not for this algorithm (alg)"
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
		return "has a claim of the wrong type"
	default:
		return "can't be verified"
	}
}
