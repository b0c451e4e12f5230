package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
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

func TestToken_BadOneIsRefusedAndTheAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--jwt-issuer=https://id.example", "--jwt-audience=rollcall")
	good := func(user string, change ...func(jwt.MapClaims)) string {
		return token(t, user, append([]func(jwt.MapClaims){func(c jwt.MapClaims) {
			c["iss"], c["aud"] = "https://id.example", "rollcall"
		}}, change...)...)
	}
	set := func(claim string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c[claim] = value }
	}
	anotherKey, _ := jwt.NewWithClaims(jwt.SigningMethodHS256,
		jwt.MapClaims{"sub": "alice"}).SignedString([]byte("another"))
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone,
		jwt.MapClaims{"sub": "alice"}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	anotherMethod, _ := jwt.NewWithClaims(jwt.SigningMethodES256,
		jwt.MapClaims{"sub": "alice"}).SignedString(key)
	words := strings.Split(good("alice"), ".")
	tampered := words[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root"}`)) +
		"." + words[2]

	for name, c := range map[string]struct{ token, says string }{
		"not a token":       {"hello", "is not a JWT"},
		"alg none":          {none, "signature does not verify"},
		"another key":       {anotherKey, "signature does not verify"},
		"another method":    {anotherMethod, "signature does not verify"},
		"tampered":          {tampered, "signature does not verify"},
		"expired":           {good("alice", set("exp", time.Now().Add(-time.Hour).Unix())), "has expired"},
		"not yet valid":     {good("alice", set("nbf", time.Now().Add(time.Hour).Unix())), "not valid yet"},
		"another issuer":    {good("alice", set("iss", "https://evil.example")), "issuer"},
		"another audience":  {good("alice", set("aud", "other")), "audience"},
		"no issuer":         {good("alice", func(c jwt.MapClaims) { delete(c, "iss") }), "lacks a claim"},
		"no subject":        {good("", func(c jwt.MapClaims) { delete(c, "sub") }), "is empty"},
		"a numeric subject": {good("", set("sub", 7)), "sub: want a string, not a number"},
		"a long subject":    {good(strings.Repeat("x", 129)), "too long"},
		"a control":         {good("a\nb"), "control character"},
	} {
		got := ask(t, a, "GET", "/ws?token="+url.QueryEscape(c.token), "", http.Header{"Authorization": nil})
		wantProblem(t, got, http.StatusUnauthorized, "bad_token")
		if !strings.Contains(got.text, c.says) {
			t.Errorf("%s: %s does not say %q", name, got.text, c.says)
		}
		_, response, err := websocket.DefaultDialer.Dial("ws://"+a.Addr+"/ws",
			http.Header{"Authorization": {"Bearer " + c.token}})
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

func TestCredentials_AmbiguousOnesAreRefused(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice, bob := token(t, "alice"), token(t, "bob")
	for path, c := range map[string]struct {
		header []string
		status int
		code   string
	}{
		"/ws": {[]string{"Bearer " + alice, "Bearer " + alice}, 400,
			"bad_authorization"},
		"/ws?":                                 {[]string{"Bearer"}, 401, "bad_authorization"},
		"/ws?token=":                           {[]string{"Basic YTpi YTpi"}, 401, "bad_authorization"},
		"/ws?token=" + alice:                   {[]string{"Bearer " + bob}, 400, "bad_token"},
		"/ws?token=" + alice + "&token=" + bob: {nil, 400, "bad_token"},
		"/presence":                            {nil, 401, "no_api_key"},
		"/presence?":                           {[]string{"Bearer wrong"}, 401, "bad_api_key"},
		"/presence?limit=1": {[]string{"Bearer " + testKey, "Bearer " + testKey}, 400,
			"bad_authorization"},
		"/presence?limit=2": {[]string{"Bearer Bearer " + testKey}, 401,
			"bad_authorization"},
		"/instances": {[]string{"Bearer " + alice}, 401, "bad_api_key"},
	} {
		got := ask(t, a, "GET", path, "", http.Header{"Authorization": c.header})
		wantProblem(t, got, c.status, c.code)
		if c.status == 401 && got.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: no WWW-Authenticate", path)
		}
	}
	for _, path := range []string{"/push/alice", "/push", "/emit/all", "/emit/authenticated"} {
		wantProblem(t, ask(t, a, "POST", path, `{"event":"x"}`, http.Header{"Authorization": nil}), 401,
			"no_api_key")
	}
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
