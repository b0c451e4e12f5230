package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"rollcall/handlers"
)

const (
	keysRefresh = 10 * time.Minute // how often keys are fetched although nobody needs new ones: so long is a removed one believed
	keysRetry   = 5 * time.Second  // the longest pause after a fetch that failed
	keysFetch   = 10 * time.Second // how long one fetch may take
	keysWait    = 5 * time.Second  // how long a token waits for it
	keysBytes   = 1 << 20          // of an answer

	// Unknown key ids cost the endpoint two fetches at once, and then one in so long, however many come.
	keysAskEvery, keysAskBurst = 5 * time.Second, 2
)

// jwks is the set of keys that an endpoint publishes. One goroutine fetches it: from time to time, soon again
// after a failure, and when a token names a key that is not in it. The last set that could be fetched stays
// until the next one. Tokens whose key is in it never wait.
type jwks struct {
	// static after construction
	url    string
	name   string // the URL without a password
	client *http.Client
	log    *slog.Logger
	asks   *rate.Limiter
	wanted chan struct{} // capacity 1: a token names an unknown key

	mu    sync.Mutex
	keys  []publishedKey
	fetch *keyFetch // under way; nil: none is
	err   error     // of the last one; nil also before the first
}

// publishedKey is a key that verifies tokens.
type publishedKey struct {
	kid, alg string // empty: it has none
	key      crypto.PublicKey
}

// keyFetch is one question to the endpoint.
type keyFetch struct {
	done chan struct{} // closed once keys and err are what came of it
}

func newKeyFetch() *keyFetch { return &keyFetch{done: make(chan struct{})} }

// newJWKS makes a set that is empty until run has fetched it. Tokens wait for that.
func newJWKS(address *url.URL, log *slog.Logger) *jwks {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	return &jwks{
		url: address.String(), name: address.Redacted(), log: log, asks: rate.NewLimiter(rate.Every(keysAskEvery), keysAskBurst),
		wanted: make(chan struct{}, 1), fetch: newKeyFetch(),
		client: &http.Client{Transport: transport, Timeout: keysFetch, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if !safeForKeys(r.URL) || len(via) > 3 {
				return errors.New("redirected too often, or to where keys could be changed on their way: want https")
			}
			return nil
		}},
	}
}

// safeForKeys says whether nobody on the way can change what is published at a URL.
func safeForKeys(u *url.URL) bool {
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && handlers.IsLoopback(u.Hostname()))
}

// run fetches keys until the context ends.
func (k *jwks) run(ctx context.Context) {
	defer k.client.CloseIdleConnections()
	for failures := 0; ; {
		err := k.fetchOnce(ctx)
		pause := keysRefresh
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			pause = min(keysRetry, time.Second<<min(failures-1, 10))
			pause = pause/2 + rand.N(pause/2) // instances that failed together need not ask together
			if failures == 1 {                // once: it may be tried for hours
				k.log.Warn("the keys that verify tokens could not be fetched; trying again until they can be", "url", k.name, "error", err)
			}
		case failures > 0:
			k.log.Info("the keys that verify tokens could be fetched again", "url", k.name, "after failures", failures)
			failures = 0
		}
		if !k.await(ctx, pause, err == nil) {
			return
		}
	}
}

// await waits until keys are to be fetched again; false if the context has ended. Only a fetch that went well
// is followed by another because a token wants it: after a failure it is soon repeated anyway.
func (k *jwks) await(ctx context.Context, pause time.Duration, heed bool) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	wanted := k.wanted
	if !heed {
		wanted = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wanted:
		if !k.underWay() && k.asks.Wait(ctx) != nil { // the tokens that wanted it are answered; it is for those that follow
			return false
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fetch == nil {
		k.fetch = newKeyFetch()
	}
	return true
}

func (k *jwks) underWay() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fetch != nil
}

// fetchOnce fetches the keys, and lets who waits for them go on.
func (k *jwks) fetchOnce(ctx context.Context) error {
	keys, err := k.download(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.keys = keys
	}
	k.err = err
	close(k.fetch.done)
	k.fetch = nil
	return err
}

// find is a handlers.KeySet.
func (k *jwks) find(ctx context.Context, kid, alg string) ([]jwt.VerificationKey, error) {
	found, fetch, err := k.look(kid, alg)
	if fetch == nil {
		return found, err
	}
	timer := time.NewTimer(keysWait)
	defer timer.Stop()
	select {
	case <-fetch.done:
		found, _, err = k.match(kid, alg)
		return found, err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, handlers.ErrNoKeys
	}
}

// look finds keys, or the fetch that may bring them, or the reason why there are neither.
func (k *jwks) look(kid, alg string) ([]jwt.VerificationKey, *keyFetch, error) {
	found, known, err := k.match(kid, alg)
	if known {
		return found, nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fetch != nil {
		return nil, k.fetch, nil
	}
	if k.err == nil && k.asks.Allow() {
		k.fetch = newKeyFetch()
	}
	select {
	case k.wanted <- struct{}{}:
	default: // it knows
	}
	return nil, k.fetch, err
}

// match finds keys by id, or all if the token names none, and says whether the set has any that are meant.
// Those of another algorithm are meant, and not found.
func (k *jwks) match(kid, alg string) (found []jwt.VerificationKey, known bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		if kid == "" || key.kid == kid {
			known = true
			if key.alg == "" || key.alg == alg {
				found = append(found, key.key)
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, true, nil
	case k.err != nil && !known:
		return nil, false, handlers.ErrNoKeys
	}
	return nil, known, handlers.ErrUnknownKey
}

// download asks the endpoint. Keys that can't verify tokens are left out.
func (k *jwks) download(ctx context.Context) ([]publishedKey, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, keysBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > keysBytes {
		return nil, fmt.Errorf("it answers more than %d bytes", keysBytes)
	}
	return k.read(text)
}

func (k *jwks) read(text []byte) ([]publishedKey, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New("it answers no JSON Web Key Set")
	}
	var keys []publishedKey
	for _, raw := range *set.Keys {
		jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
		if err != nil {
			k.log.Debug("a published key is not used", "url", k.name, "error", err)
			continue
		}
		if key := publicPart(jwk); key != nil {
			keys = append(keys, publishedKey{jwk.Marshal().KID, jwk.Marshal().ALG.String(), key})
		}
	}
	return keys, nil
}

// publicPart is the key that verifies; nil if this one does not, or is for something else.
func publicPart(jwk jwkset.JWK) crypto.PublicKey {
	says := jwk.Marshal()
	if says.USE != "" && says.USE != jwkset.UseSig || len(says.KEYOPS) > 0 && !slices.Contains(says.KEYOPS, jwkset.KeyOpsVerify) {
		return nil
	}
	key := jwk.Key()
	if private, ok := key.(interface{ Public() crypto.PublicKey }); ok {
		key = private.Public()
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return key
	}
	return nil
}
