package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const goodHeader = `{"alg":"HS256","typ":"JWT"}`

// signed makes a token of exactly this header and these claims, with a valid signature.
func signed(header, claims string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// tryToken sends a token to /ws without asking for a socket. The answer is 426 if the token is valid.
func tryToken(t *testing.T, a *App, token string) answer {
	t.Helper()
	return ask(t, a, "GET", "/ws?token="+url.QueryEscape(token), "", http.Header{"Authorization": nil})
}

func TestToken_ThatNeverExpiresCanBeAllowed(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--no-require-exp")
	for _, claims := range []string{`{"sub":"alice"}`, `{"sub":"alice","exp":null}`} {
		if got := tryToken(t, a, signed(goodHeader, claims)); got.Status != http.StatusUpgradeRequired {
			t.Errorf("%s: %d %s", claims, got.Status, got.text)
		}
	}
	wantProblem(t, tryToken(t, a, signed(goodHeader, `{"sub":"alice","exp":1}`)), 401, "bad_token")
}

func TestPush_HalfOfASurrogatePairInDataHarmsNobody(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	push(t, a, "alice", `{"event":"x","data":"cut: \ud83e"}`, "online", 1)
	if got := alice.next(); got.Event != "x" {
		t.Errorf("got %+v", got)
	}
	// and it is another user that has the character in the name which a cut one would become
	name := "x\ufffd"
	other := connect(t, a, name)
	if got := ask(t, a, "POST", "/push", `{"users":["x�"],"event":"x","data":"\ud83e"}`); got.Status != 200 {
		t.Errorf("%d %s", got.Status, got.text)
	}
	if got := other.next(); got.Event != "x" {
		t.Errorf("got %+v", got)
	}
	lines := `{"user":"x\ud800","event":"y"}` + "\n" + `{"user":"alice","event":"y","data":"\ud83e"}` + "\n"
	request, err := requestTo(t.Context(), a, "POST", "/push", lines)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	first, rest, _ := strings.Cut(string(text), "\n")
	if !strings.Contains(first, `"line":1`) || !strings.Contains(first, "surrogate") ||
		!strings.Contains(rest, `"instances":1`) {
		t.Errorf("%s", text)
	}
}
