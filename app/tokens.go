package main

import (
	"context"
	"fmt"
	"os"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"rollcall/handlers"
)

// newTokens makes the verifier of the settings' keys.
func newTokens(ctx context.Context, c *Config) (*handlers.Tokens, error) {
	o := handlers.TokenOptions{Secrets: c.JWTSecret, Issuer: c.JWTIssuer, Audience: c.JWTAudience}
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
		keys, err := keyfunc.NewDefaultCtx(context.WithoutCancel(ctx), []string{c.JWKSURL})
		if err != nil {
			return nil, fmt.Errorf("--jwks-url (ROLLCALL_JWKS_URL): %w", err)
		}
		o.KeySet = keys.Keyfunc
	}
	return handlers.NewTokens(o), nil
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
