package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"rollcall/handlers"
)

// newTokens makes the verifier of the settings' keys, which may be fetched until the context ends.
func newTokens(ctx context.Context, c *Config, log *slog.Logger) (*handlers.Tokens, error) {
	o := handlers.TokenOptions{Secrets: c.JWTSecret, Issuer: c.JWTIssuer, Audience: c.JWTAudience}
	if slices.ContainsFunc(c.JWTSecret, func(secret string) bool { return len(secret) < safeSecret }) && !c.dev() {
		log.Warn("a secret of --jwt-secret is short: who has a token of it may find it out", "want bytes", safeSecret)
	}
	if c.JWTPublicKey != "" {
		pem, err := os.ReadFile(c.JWTPublicKey)
		if err != nil {
			return nil, fmt.Errorf("--jwt-public-key (ROLLCALL_JWT_PUBLIC_KEY): %w", err)
		}
		if o.PublicKey, err = publicKey(pem); err != nil {
			return nil, refuse("jwt-public-key", c.JWTPublicKey, err.Error())
		}
	}
	if c.JWKSURL != "" {
		var err error
		if o.KeySet, err = keySet(ctx, c.JWKSURL, log); err != nil {
			return nil, fmt.Errorf("--jwks-url (ROLLCALL_JWKS_URL): %w", err)
		}
	}
	return handlers.NewTokens(o), nil
}

// safeSecret is how many bytes a secret of HS256 must have: RFC 7518, 3.2.
const safeSecret = 32

// askAgain is how often keys are fetched because a token names one that is not known. Meanwhile such tokens are refused at once.
const askAgain = 5 * time.Second

// keySet is the JWKS at a URL, kept fresh until the context ends. If it can't be fetched now, it is when a token needs it.
func keySet(ctx context.Context, url string, log *slog.Logger) (jwt.Keyfunc, error) {
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{url}, keyfunc.Override{
		RefreshUnknownKID: rate.NewLimiter(rate.Every(askAgain), 1), RateLimitWaitMax: time.Millisecond,
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) {
			return func(_ context.Context, err error) { log.Warn("jwks", "error", err) }
		},
	})
	if err != nil {
		return nil, err
	}
	return func(token *jwt.Token) (any, error) {
		key, err := keys.Keyfunc(token)
		if err != nil {
			if all, errAll := keys.Storage().KeyReadAll(ctx); errAll == nil && len(all) == 0 {
				err = handlers.ErrNoKeys
			}
		}
		return key, err
	}, nil
}

func publicKey(pem []byte) (any, error) {
	if key, err := jwt.ParseRSAPublicKeyFromPEM(pem); err == nil {
		return key, nil
	}
	if key, err := jwt.ParseECPublicKeyFromPEM(pem); err == nil {
		return key, nil
	}
	if key, err := jwt.ParseEdPublicKeyFromPEM(pem); err == nil {
		return key, nil
	}
	return nil, fmt.Errorf("want a PEM file with an RSA, ECDSA or Ed25519 public key")
}
