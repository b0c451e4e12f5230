package handlers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signed makes a token of exactly this header and these claims, with the key "secret".
func signed(header, claims string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const plainHeader = `{"alg":"HS256","typ":"JWT"}`

func TestTokens_ReadATokenAsEveryOtherVerifierDoes(t *testing.T) {
	tokens := NewTokens(TokenOptions{
		Secrets: []string{"old", "secret"}, Issuer: "id.example", Audience: "rollcall", RequireExp: true,
	})
	placeholders := strings.NewReplacer(
		"REST", `"iss":"id.example","aud":"rollcall","exp":1e10`,
		"SOON", "1e10", "PAST", "1e9", // the years 2286 and 2001
	)
	const fraction = `{"sub":"alice","iss":"id.example","aud":"rollcall","exp":10000000000.5}`
	const severalAudiences = `{"sub":"alice","iss":"id.example","aud":["x","rollcall"],"exp":SOON}`
	for name, c := range map[string]struct {
		claims, says string // says: empty if the token is good
	}{
		"good":                       {`{"sub":"alice",REST}`, ""},
		"other cases are others":     {`{"sub":"alice","Sub":"mallory","SUB":7,"EXP":PAST,REST}`, ""},
		"only in another case":       {`{"Sub":"alice",REST}`, "is empty"},
		"two subs":                   {`{"sub":"alice","sub":"bob",REST}`, `"sub" comes twice`},
		"two subs, one escaped":      {`{"sub":"alice","s\u0075b":"bob",REST}`, `"sub" comes twice`},
		"two of something within":    {`{"sub":"alice","x":[{"a":1,"a":2}],REST}`, `"a" comes twice`},
		"no sub":                     {`{REST}`, "is empty"},
		"a numeric sub":              {`{"sub":7,REST}`, "sub: want a string, not a number"},
		"a long sub":                 {`{"sub":"` + strings.Repeat("x", 129) + `",REST}`, "too long"},
		"a sub with a control":       {`{"sub":"a\nb",REST}`, "control character"},
		"a sub that is not UTF-8":    {"{\"sub\":\"a\xff\",REST}", "not UTF-8"},
		"a claim that is not UTF-8":  {"{\"sub\":\"alice\",\"name\":\"\xff\",REST}", "not UTF-8"},
		"half of a pair":             {`{"sub":"a\ud800",REST}`, "half of a surrogate pair"},
		"the other half":             {`{"sub":"a\udfff",REST}`, "half of a surrogate pair"},
		"a whole pair":               {`{"sub":"\ud83e\udd8a",REST}`, ""},
		"half of one in a name":      {`{"sub":"alice","name":"\ud83e",REST}`, ""},
		"no exp":                     {`{"sub":"alice"}`, "lacks a claim"},
		"exp null":                   {`{"sub":"alice","exp":null}`, "lacks a claim"},
		"exp in a string":            {`{"sub":"alice","exp":"SOON"}`, "exp: want a number, not a string"},
		"exp with a fraction":        {fraction, ""},
		"exp in milliseconds":        {`{"sub":"alice","exp":1e13}`, "milliseconds"},
		"expired, whatever EXP says": {`{"sub":"alice","exp":PAST,"EXP":SOON}`, "has expired"},
		"issued in the future":       {`{"sub":"alice","iat":SOON,REST}`, "not valid yet"},
		"valid in the future":        {`{"sub":"alice","nbf":SOON,REST}`, "not valid yet"},
		"issued and valid before":    {`{"sub":"alice","iat":PAST,"nbf":PAST,REST}`, ""},
		"another iss":                {`{"sub":"alice","iss":"evil","aud":"rollcall","exp":SOON}`, "issuer"},
		"no iss":                     {`{"sub":"alice","aud":"rollcall","exp":SOON}`, "lacks a claim"},
		"another aud":                {`{"sub":"alice","iss":"id.example","aud":"x","exp":SOON}`, "audience"},
		"one aud of several":         {severalAudiences, ""},
		"aud of a wrong type":        {`{"sub":"alice","aud":7}`, "aud: want a string"},
		"claims of a wrong type":     {`["alice"]`, "want a JSON object"},
	} {
		claims := placeholders.Replace(c.claims)
		user, err := tokens.User(t.Context(), signed(plainHeader, claims))
		if c.says == "" && (user == "" || err != nil) || c.says != "" && !isBadToken(err, c.says) {
			t.Errorf("%s: %s: %q, %v; want %q", name, claims, user, err, c.says)
		}
	}
}

func TestTokens_ReadTheHeaderStrictly(t *testing.T) {
	tokens := NewTokens(TokenOptions{Secrets: []string{"secret"}})
	for header, says := range map[string]string{
		`{"alg":"HS256","kid":"x","x":[1]}`:          "",
		`{"alg":"HS256","crit":["x"]}`:               "crit",
		`{"alg":"HS256","crit":null}`:                "crit",
		`{"alg":"HS256","crit":["b64"],"b64":false}`: "crit",
		`{"alg":"none","alg":"HS256"}`:               `"alg" comes twice`,
		`{"alg":"HS256","kid":7}`:                    "kid: want",
	} {
		_, err := tokens.User(t.Context(), signed(header, `{"sub":"alice"}`))
		if says == "" && err != nil || says != "" && !isBadToken(err, says) {
			t.Errorf("%s: %v; want %q", header, err, says)
		}
	}
}

func isBadToken(err error, says string) bool {
	p := (*Problem)(nil)
	return errors.As(err, &p) && p.Status == 401 && p.Code == "bad_token" && strings.Contains(p.Detail, says)
}

func TestTokens_RefuseWhatIsNotSignedWithTheirKey(t *testing.T) {
	tokens := NewTokens(TokenOptions{Secrets: []string{"secret"}})
	const claims = `{"sub":"alice"}`
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	alice := jwt.MapClaims{"sub": "alice"}
	otherKey, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, alice).SignedString([]byte("another"))
	otherMethod, _ := jwt.NewWithClaims(jwt.SigningMethodES256, alice).SignedString(key)
	none := signed(`{"alg":"none"}`, claims)
	good := signed(plainHeader, claims)
	parts := strings.Split(good, ".")
	root := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root"}`))
	for name, token := range map[string]string{
		"another key": otherKey, "another method": otherMethod, "alg none": none,
		"other claims": parts[0] + "." + root + "." + parts[2],
		// the rest means the same bytes as the good one
		"padding": good + "=", "a line break": good[:9] + "\n" + good[9:], "a spare bit": spareBit(good),
	} {
		if user, err := tokens.User(t.Context(), token); !isBadToken(err, "") {
			t.Errorf("%s: %q, %v", name, user, err)
		}
	}
	if user, err := tokens.User(t.Context(), good); user != "alice" || err != nil {
		t.Errorf("%q, %v", user, err)
	}
}

// spareBit changes a bit of the last character of a token that base64 does not use.
func spareBit(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])+1])
}

func TestTokens_SayNothingOfATokenWhoseKeyNobodyWaitedFor(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	tokens := NewTokens(TokenOptions{
		KeySet: func(ctx context.Context, _, _ string) ([]jwt.VerificationKey, error) {
			leave()
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	made := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sub": "alice", "exp": time.Now().Add(time.Hour).Unix(),
	})
	head, err := made.SigningString()
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64) // it is never checked
	_, err = tokens.User(ctx, head+"."+made.EncodeSegment(signature))
	if p := problemOf(err); !errors.Is(err, context.Canceled) || p.Code != "given_up" {
		t.Errorf("%v: %s", err, p.Code)
	}
}
