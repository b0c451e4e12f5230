package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
)

// Package handlers tests how tokens are read. Here is what settings and the handshake have to do with it.
func TestToken_BadOneIsRefusedAndTheAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--jwt-issuer=https://id.example", "--jwt-audience=rollcall")
	made := func(claim string, value any) string {
		return token(t, "alice", func(c jwt.MapClaims) {
			c["iss"], c["aud"] = "https://id.example", "rollcall"
			c[claim] = value
		})
	}
	dial(t, "ws://"+a.Addr+"/ws?token="+made("sub", "alice"), nil)
	for name, c := range map[string]struct{ token, says string }{
		"not a token":      {"hello", "is not a JWT"},
		"tampered":         {made("sub", "alice") + "x", "signature does not verify"},
		"expired":          {made("exp", time.Now().Add(-time.Hour).Unix()), "has expired"},
		"without exp":      {made("exp", nil), "lacks a claim"},
		"another issuer":   {made("iss", "https://evil.example"), "issuer"},
		"another audience": {made("aud", "other"), "audience"},
	} {
		got := ask(t, a, "GET", "/ws?token="+url.QueryEscape(c.token), "", http.Header{"Authorization": nil})
		wantProblem(t, got, http.StatusUnauthorized, "bad_token")
		if !strings.Contains(got.text, c.says) {
			t.Errorf("%s: %s does not say %q", name, got.text, c.says)
		}
		header := http.Header{"Authorization": {"Bearer " + c.token}}
		_, response, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws", header)
		if !errors.Is(err, websocket.ErrBadHandshake) || response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: connected: %v", name, err)
		}
	}
}

func TestToken_MayComeInTheQueryOrTheHeaderWithOrWithoutBearer(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := token(t, "alice")
	for query, header := range map[string]string{"?token=" + alice: "", "": "Bearer " + alice, "?": alice,
		"?token=": "bearer  " + alice, "?token=" + alice + "&": alice} {
		h := http.Header{}
		if header != "" {
			h.Set("Authorization", header)
		}
		dial(t, "ws://"+a.Addr+"/ws"+query, h)
	}
	wantState(t, a, "alice", "online", 5)
}

func TestCredentials_EveryKeyAndSecretOfARotationWorks(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--api-keys=the-old-key-of-tests,"+testKey,
		"--jwt-secret=the-old-secret-of-tests,"+testSecret)
	connect(t, a, "alice")
	for _, key := range []string{"the-old-key-of-tests", testKey} {
		if got := ask(t, a, "GET", "/presence/alice", "",
			http.Header{"Authorization": {"Bearer " + key}}); got.Body["state"] != "online" {
			t.Errorf("with key %s: %d %s", key, got.Status, got.text)
		}
	}
}

// publicKeyFile writes a public key to a PEM file.
func publicKeyFile(t *testing.T, key *ecdsa.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestToken_OfAPublicKeyIsVerified(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := publicKeyFile(t, &key.PublicKey)
	a := startApp(t, "--jwt-public-key="+file)
	lasting := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	signed, _ := jwt.NewWithClaims(jwt.SigningMethodES256, lasting).SignedString(key)
	dial(t, "ws://"+a.Addr+"/ws?token="+signed, nil)
	// the public key is not secret, so it must not verify tokens as a shared secret does
	pemText, _ := os.ReadFile(file)
	forged, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, lasting).SignedString(pemText)
	wantProblem(t, ask(t, a, "GET", "/ws?token="+forged, "", http.Header{"Authorization": nil}), 401,
		"bad_token")
}

func TestHandshake_AnonymousSocketsCanBeForbidden(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--no-allow-anonymous")
	wantProblem(t, ask(t, a, "GET", "/ws", "", http.Header{"Authorization": nil}), 401, "no_token")
	connect(t, a, "alice")
}

func TestHandshake_OnlyPagesOfAllowedOriginsMayConnect(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--allowed-origins=https://app.example")
	for origin, status := range map[string]int{"http://" + a.Addr: 426, "https://app.example": 426,
		"https://evil.example": 403, "null": 403, "https://app.example.evil": 403} {
		if got := ask(t, a, "GET", "/ws", "",
			http.Header{"Authorization": nil, "Origin": {origin}}); got.Status != status {
			t.Errorf("origin %s: %d, want %d", origin, got.Status, status)
		}
	}
}
