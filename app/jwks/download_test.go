package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/MicahParks/jwkset"
)

func newSet(t *testing.T, address string) *Set {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	s := New(u, slog.New(slog.DiscardHandler))
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func publish(t *testing.T, key crypto.PublicKey, fields jwkset.JWKMetadataOptions) jwkset.JWKMarshal {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: fields})
	if err != nil {
		t.Fatal(err)
	}
	return jwk.Marshal()
}

func TestSet_HasOnlyKeysForSignatures(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := &private.PublicKey
	type fields = jwkset.JWKMetadataOptions
	text, err := json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{
		publish(t, key, fields{KID: "plain"}),
		publish(t, key, fields{KID: "sig", USE: jwkset.UseSig, ALG: jwkset.AlgES256}),
		publish(t, key, fields{KID: "verify", KEYOPS: []jwkset.KEYOPS{jwkset.KeyOpsVerify}}),
		publish(t, &large.PublicKey, fields{KID: "rsa", USE: jwkset.UseSig}),
		publish(t, key, fields{KID: "enc", USE: jwkset.UseEnc}),
		publish(t, key, fields{KID: "ops", KEYOPS: []jwkset.KEYOPS{jwkset.KeyOpsEncrypt}}),
		{KTY: "oct", KID: "secret", K: "c2VjcmV0"},
		{KTY: "unheard of", KID: "new"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := newSet(t, "https://example.com/keys")
	if s.keys, err = s.parse(text); err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, key := range s.keys {
		kids = append(kids, key.kid)
	}
	if want := []string{"plain", "sig", "verify", "rsa"}; !slices.Equal(kids, want) {
		t.Errorf("these verify: %v, want %v", kids, want)
	}
	if found, known, err := s.match("sig", "ES384"); len(found) > 0 || !known || err == nil {
		t.Errorf("for another algorithm: %v, %v, %v", found, known, err)
	}
	if found, _, err := s.match("", "ES256"); len(found) != 4 || err != nil {
		t.Errorf("for a token that names no key: %v, %v", found, err)
	}
}

func TestSet_RefusesAnAnswerThatIsNoKeySet(t *testing.T) {
	t.Parallel()
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
	}
	for problem, endpoint := range map[string]http.Handler{
		"no JSON Web Key Set": says("<html>"),
		"no JSON Web Key":     says(`{"error":"try again"}`),
		"more than":           says(`{"keys":[],"more":"` + strings.Repeat("x", maxBytes) + `"}`),
		"404":                 http.NotFoundHandler(),
		"want https":          http.RedirectHandler("http://evil.example/", http.StatusFound),
	} {
		server := httptest.NewServer(endpoint)
		defer server.Close()
		got, err := newSet(t, server.URL).download(t.Context())
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, %v, want %q", got, err, problem)
		}
	}
}
