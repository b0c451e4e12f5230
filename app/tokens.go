package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/golang-jwt/jwt/v5"

	"rollcall/app/jwks"
	"rollcall/handlers"
)

// newTokens makes what verifies tokens with the keys of the settings. If keys are published at a URL, the
// caller runs the key set; else it is nil.
func newTokens(c *Config, log *slog.Logger) (*handlers.Tokens, *jwks.Set, error) {
	o := handlers.TokenOptions{
		Secrets: c.JWTSecret, Issuer: c.JWTIssuer, Audience: c.JWTAudience, RequireExp: c.RequireExp,
	}
	warnOfShortSecrets(c, log)
	if c.JWTPublicKey != "" {
		pem, err := os.ReadFile(c.JWTPublicKey)
		if err != nil {
			return nil, nil, fmt.Errorf("--jwt-public-key (ROLLCALL_JWT_PUBLIC_KEY): %w", err)
		}
		if o.PublicKey, err = publicKey(pem); err != nil {
			return nil, nil, refuse("jwt-public-key", c.JWTPublicKey, err.Error())
		}
	}
	var keySet *jwks.Set
	if c.JWKSURL != "" {
		address, err := keysURL(c.JWKSURL)
		if err != nil {
			return nil, nil, err
		}
		keySet = jwks.New(address, log)
		o.KeySet = keySet.Find
	}
	return handlers.NewTokens(o), keySet, nil
}

const (
	// safeSecret is how many bytes a secret of HS256 must have by RFC 7518, section 3.2. An API key should
	// not be easier to guess.
	safeSecret = 32
	// minSecret is how many bytes a secret or an API key must have to be accepted at all.
	minSecret = 16
)

// warnOfShortSecrets warns of secrets and keys that somebody could find out. Development mode needs none that
// are safe.
func warnOfShortSecrets(c *Config, log *slog.Logger) {
	if c.dev() {
		return
	}
	short := func(secret string) bool { return len(secret) < safeSecret }
	if slices.ContainsFunc(c.JWTSecret, short) {
		log.Warn("a secret of --jwt-secret is short: whoever has a token signed with it may find it out",
			"want bytes", safeSecret)
	}
	if slices.ContainsFunc(c.APIKeys, short) {
		log.Warn("a key of --api-keys is short: somebody may guess it", "want bytes", safeSecret)
	}
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
