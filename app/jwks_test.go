package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"rollcall/app/jwks"
	"rollcall/lua/redistest"
)

// issuer publishes a key set, at a distance of 150 ms.
type issuer struct {
	t   *testing.T
	url string

	mu sync.Mutex
	// mu guards the following
	keys map[string]*ecdsa.PrivateKey
	// nil: it answers with the keys. It returns true if it has answered something else.
	answer func(w http.ResponseWriter, asked int) bool
	asked  int
}

func startIssuer(t *testing.T, kids ...string) *issuer {
	t.Helper()
	i := &issuer{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	link := startLink(t, strings.TrimPrefix(server.URL, "http://"))
	link.upwards.Store(&hazard{delay: 75 * time.Millisecond})
	link.downwards.Store(&hazard{delay: 75 * time.Millisecond})
	i.url = "http://" + link.addr + "/keys"
	i.publish(kids...)
	return i
}

// publish publishes keys with these ids and no others. It makes those that it does not have yet.
func (i *issuer) publish(kids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := map[string]*ecdsa.PrivateKey{}
	for _, kid := range kids {
		if keys[kid] = i.keys[kid]; keys[kid] == nil {
			keys[kid] = newECKey(i.t)
		}
	}
	i.keys = keys
}

// answers sets how the issuer answers from now on.
func (i *issuer) answers(how func(w http.ResponseWriter, asked int) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = how
}

func (i *issuer) times() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	i.asked++
	asked, answer := i.asked, i.answer
	var set jwkset.JWKSMarshal
	for _, kid := range slices.Sorted(maps.Keys(i.keys)) {
		fields := jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.AlgES256}
		jwk, err := jwkset.NewJWKFromKey(&i.keys[kid].PublicKey, jwkset.JWKOptions{Metadata: fields})
		if err != nil {
			i.t.Error(err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	i.mu.Unlock()
	if answer == nil || !answer(w, asked) {
		_ = json.NewEncoder(w).Encode(set)
	}
}

// token makes a token for alice, signed with a key that need not be published.
func (i *issuer) token(kid string) string {
	i.t.Helper()
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	if key == nil {
		key = newECKey(i.t)
	}
	made := jwt.NewWithClaims(jwt.SigningMethodES256,
		jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})
	if kid != "" {
		made.Header["kid"] = kid
	}
	token, err := made.SignedString(key)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func unavailable(w http.ResponseWriter, _ int) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// wantGood waits until a token is accepted, which may need a fetch of its key.
func wantGood(t *testing.T, a *App, token string) {
	t.Helper()
	redistest.Eventually(t, "a token that is verified", func() (answer, bool) {
		got := tryToken(t, a, token)
		return got, got.Status == http.StatusUpgradeRequired
	})
}

// wantNoKeys checks that an answer says that the keys can't be fetched, and when to try again.
func wantNoKeys(t *testing.T, got answer) {
	t.Helper()
	wantProblem(t, got, 503, "no_keys")
	if got.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
}

func TestJWKS_KeysRotateOverADistanceAndFailures(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	// every other time
	i.answers(func(w http.ResponseWriter, asked int) bool { return asked%2 == 1 && unavailable(w, asked) })
	a := startApp(t, "--jwks-url="+i.url)
	wantGood(t, a, i.token("one"))
	for _, rotation := range [][]string{{"one", "two"}, {"two", "three"}} {
		i.publish(rotation...)
		wantGood(t, a, i.token(rotation[1])) // a new one
		wantGood(t, a, i.token(rotation[0]))
	}
	wantGood(t, a, i.token("two"))
}

func TestJWKS_TheFirstTokenOfANewKeyWaitsForIt(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	a := startApp(t, "--jwks-url="+i.url)
	wantGood(t, a, i.token("one"))
	i.publish("one", "two")
	if got := tryToken(t, a, i.token("two")); got.Status != http.StatusUpgradeRequired {
		t.Errorf("%d %s", got.Status, got.text)
	}
}

func TestJWKS_ManyUnknownKeysAskTheEndpointAFewTimes(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	a := startApp(t, "--jwks-url="+i.url)
	wantGood(t, a, i.token("one"))
	start, before := time.Now(), i.times()
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			got := tryToken(t, a, i.token(fmt.Sprint("unknown", n)))
			wantProblem(t, got, 401, "bad_token")
			if !strings.Contains(got.text, "(kid)") {
				t.Error(got.text)
			}
		})
	}
	all.Wait()
	most := 2 + jwks.AskBurst + int(time.Since(start)/jwks.AskEvery) // however slow this machine is
	if asked := i.times() - before; asked == 0 || asked > most {
		t.Errorf("it was asked %d times, want 1 to %d", asked, most)
	}
}

func TestJWKS_TokensOfKnownKeysDoNotWaitForAFetch(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	a := startApp(t, "--jwks-url="+i.url)
	wantGood(t, a, i.token("one"))
	asked, release := make(chan struct{}, 100), make(chan struct{})
	i.answers(func(http.ResponseWriter, int) bool { asked <- struct{}{}; <-release; return false })
	waiting := make(chan answer)
	go func() { waiting <- tryToken(t, a, i.token("two")) }()
	<-asked // and gets no answer for now
	for range 10 {
		if got := tryToken(t, a, i.token("one")); got.Status != http.StatusUpgradeRequired {
			t.Errorf("%d %s", got.Status, got.text)
		}
	}
	close(release)
	// the latter on a slow machine
	if got := <-waiting; got.Status != http.StatusUnauthorized &&
		got.Status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", got.Status, got.text)
	}
}

func TestJWKS_KnownKeysOutliveAnOutageOfTheirEndpoint(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	a := startApp(t, "--jwks-url="+i.url)
	wantGood(t, a, i.token("one"))
	i.answers(unavailable)
	before := i.times()
	wantNoKeys(t, tryToken(t, a, i.token("two"))) // nobody can know
	if i.times() == before {
		t.Error("it was not asked")
	}
	if got := tryToken(t, a, i.token("one")); got.Status != http.StatusUpgradeRequired {
		t.Errorf("%d %s", got.Status, got.text)
	}
	i.publish("one", "two")
	i.answers(nil)
	wantGood(t, a, i.token("two"))
}

func TestJWKS_AnInstanceThatStartsInAnOutageGetsItsKeysAfterwards(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	i.answers(unavailable)
	a := startApp(t, "--jwks-url="+i.url)
	wantNoKeys(t, tryToken(t, a, i.token("one")))
	wantNoKeys(t, tryToken(t, a, i.token(""))) // which names none
	i.answers(nil)
	wantGood(t, a, i.token("one"))
	wantGood(t, a, i.token("one"))
	other := tryToken(t, a, i.token("other"))
	wantProblem(t, other, 401, "bad_token")
}

func TestJWKS_AKeyThatIsInTheFileAndTheSetMayBeEither(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, "one")
	i.answers(unavailable)
	key := newECKey(t)
	a := startApp(t, "--jwks-url="+i.url, "--jwt-public-key="+publicKeyFile(t, &key.PublicKey))
	made, err := jwt.NewWithClaims(jwt.SigningMethodES256,
		jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	wantGood(t, a, made)
	wantNoKeys(t, tryToken(t, a, i.token("one"))) // it may be good
	i.answers(nil)
	wantGood(t, a, i.token("one"))
	wantGood(t, a, made)
}
