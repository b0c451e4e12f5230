package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
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

func TestToken_IsReadAsEveryOtherVerifierReadsIt(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	for name, c := range map[string]struct {
		header, claims, says string // empty: it is good
	}{
		"good": {goodHeader, `{"sub":"alice","exp":%[1]d}`, ""},
		"other cases are others": {goodHeader,
			`{"sub":"alice","Sub":"mallory","SUB":7,"exp":%[1]d,"EXP":%[2]d}`, ""},
		"only in another case":       {goodHeader, `{"Sub":"alice","exp":%[1]d}`, "is empty"},
		"expired, whatever EXP says": {goodHeader, `{"sub":"alice","exp":%[2]d,"EXP":%[1]d}`, "has expired"},
		"two subs": {goodHeader, `{"sub":"alice","sub":"mallory","exp":%[1]d}`,
			`the field "sub" comes twice`},
		"two subs, one escaped": {goodHeader, `{"sub":"alice","s\u0075b":"mallory","exp":%[1]d}`,
			`the field "sub" comes twice`},
		"two of something within": {goodHeader, `{"sub":"alice","exp":%[1]d,"more":[{"a":1,"a":2}]}`,
			`the field "a" comes twice`},
		"sub is not UTF-8": {goodHeader, "{\"sub\":\"a\xff\",\"exp\":%[1]d}", "not UTF-8"},
		"a claim is not UTF-8": {goodHeader, "{\"sub\":\"alice\",\"name\":\"\xff\",\"exp\":%[1]d}",
			"not UTF-8"},
		"half of a pair": {goodHeader, `{"sub":"a\ud800","exp":%[1]d}`,
			"half of a surrogate pair"},
		"the other half": {goodHeader, `{"sub":"a\udfff","exp":%[1]d}`,
			"half of a surrogate pair"},
		"a whole pair": {goodHeader, `{"sub":"\ud83e\udd8a","exp":%[1]d}`, ""},
		// nobody is confused by it
		"half of one in a name": {goodHeader, `{"sub":"alice","name":"\ud83e","exp":%[1]d}`, ""},
		"no exp":                {goodHeader, `{"sub":"alice"}`, "lacks a claim"},
		"exp null":              {goodHeader, `{"sub":"alice","exp":null}`, "lacks a claim"},
		"exp in a string": {goodHeader, `{"sub":"alice","exp":"%[1]d"}`,
			"exp: want a number, not a string"},
		"exp in milliseconds": {goodHeader, `{"sub":"alice","exp":%[1]d000}`, "milliseconds"},
		"exp with a fraction": {goodHeader, `{"sub":"alice","exp":%[1]d.5}`, ""},
		"issued in an hour": {goodHeader, `{"sub":"alice","exp":%[1]d,"iat":%[1]d}`,
			"not valid yet"},
		"valid in an hour": {goodHeader, `{"sub":"alice","exp":%[1]d,"nbf":%[1]d}`,
			"not valid yet"},
		"issued an hour ago": {goodHeader, `{"sub":"alice","exp":%[1]d,"iat":%[2]d,"nbf":%[2]d}`, ""},
		"aud of a wrong type": {goodHeader, `{"sub":"alice","exp":%[1]d,"aud":7}`,
			"aud: want a string"},
		"claims of a wrong type": {goodHeader, `["alice"]`, "want a JSON object"},
		"crit":                   {`{"alg":"HS256","crit":["x"]}`, `{"sub":"alice","exp":%[1]d}`, "crit"},
		"crit null":              {`{"alg":"HS256","crit":null}`, `{"sub":"alice","exp":%[1]d}`, "crit"},
		"crit of b64": {`{"alg":"HS256","crit":["b64"],"b64":false}`,
			`{"sub":"alice","exp":%[1]d}`, "crit"},
		"two algs": {`{"alg":"none","alg":"HS256"}`, `{"sub":"alice","exp":%[1]d}`,
			`the field "alg" comes twice`},
		"a numeric kid": {`{"alg":"HS256","kid":7}`, `{"sub":"alice","exp":%[1]d}`, "kid: want"},
		"a header with more": {`{"alg":"HS256","kid":"x","typ":"at+jwt","x":[1]}`,
			`{"sub":"alice","exp":%[1]d}`, ""},
	} {
		claims := c.claims
		if strings.Contains(claims, "%") {
			// or one of them might be left over
			claims = strings.TrimSuffix(fmt.Sprintf(claims+"%[2]d", soon, past), fmt.Sprint(past))
		}
		got := tryToken(t, a, signed(c.header, claims))
		if c.says == "" && got.Status != http.StatusUpgradeRequired || c.says != "" &&
			(got.Status != 401 || !strings.Contains(got.text, jsonQuoted(c.says))) {
			t.Errorf("%s: %s: %d %s, want %q", name, claims, got.Status, got.text, c.says)
		}
	}
}

// jsonQuoted is how a text stands within a string of JSON.
func jsonQuoted(text string) string { return strings.ReplaceAll(text, `"`, `\"`) }

func TestToken_HasOnlyOneSpelling(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	good := signed(goodHeader, fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Hour).Unix()))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	for name, other := range map[string]string{ // all of them mean the same bytes
		"bits that are left over": good[:len(good)-1] + alphabet[last+1:last+2],
		"a line break":            good[:len(good)-5] + "\n" + good[len(good)-5:],
		"padding":                 good + "=",
	} {
		if got := tryToken(t, a, other); got.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, got.Status, got.text)
		}
	}
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
