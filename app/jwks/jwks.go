// Package jwks keeps a copy of the keys that an endpoint publishes as a JSON Web Key Set (RFC 7517), to
// verify tokens with.
//
// One goroutine, Run, fetches the set: every ten minutes, soon again after a failure, and when a token names
// a key that is not in it. The last set that could be fetched stays until the next one, so an outage of the
// endpoint does not matter for keys that are known. A token whose key is known never waits; one whose key is
// not waits for the fetch that may bring it.
package jwks

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"rollcall/handlers"
)

const (
	refreshEvery = 10 * time.Minute // a key that is no longer published is believed for so long
	maxRetry     = 5 * time.Second  // the longest pause after a fetch that failed
	fetchTimeout = 10 * time.Second
	maxWait      = 5 * time.Second // of a token, for a fetch

	// Unknown key ids, however many come, cost the endpoint AskBurst fetches at once, and then one every
	// AskEvery.
	AskEvery = 5 * time.Second
	AskBurst = 2
)

// Set is the set of keys at one URL.
type Set struct {
	// static after construction
	url      string
	redacted string // the URL without a password
	client   *http.Client
	log      *slog.Logger
	asks     *rate.Limiter // of fetches because of unknown keys
	wanted   chan struct{} // capacity 1, so that nobody waits: a token names an unknown key

	mu sync.Mutex
	// mu guards the following
	keys  []key
	fetch *fetch // under way; nil: none is
	err   error  // of the last fetch; also nil before the first
}

// fetch is one request to the endpoint.
type fetch struct {
	done chan struct{} // closed when the set has the result
}

func newFetch() *fetch { return &fetch{done: make(chan struct{})} }

// New makes a set that is empty until Run has fetched it. Tokens wait for that.
func New(address *url.URL, log *slog.Logger) *Set {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	return &Set{
		url: address.String(), redacted: address.Redacted(), log: log,
		asks:   rate.NewLimiter(rate.Every(AskEvery), AskBurst),
		wanted: make(chan struct{}, 1),
		fetch:  newFetch(),
		client: &http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: checkRedirect},
	}
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	if !IsSafe(r.URL) || len(via) > 3 {
		return errors.New("redirected too often, or to where keys could be changed on their way: want https")
	}
	return nil
}

// IsSafe reports whether nobody on the way can change what is published at a URL.
func IsSafe(u *url.URL) bool {
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && handlers.IsLoopback(u.Hostname()))
}

// Run fetches the set until the context ends.
func (s *Set) Run(ctx context.Context) {
	defer s.client.CloseIdleConnections()
	for failures := 0; ; {
		err := s.fetchOnce(ctx)
		pause := refreshEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			pause = min(maxRetry, time.Second<<min(failures-1, 10))
			pause = pause/2 + rand.N(pause/2) // so that instances that failed together do not ask together
			if failures == 1 {                // not each time: it may be tried for hours
				s.log.Warn("the keys that verify tokens could not be fetched; trying again until they can be",
					"url", s.redacted, "error", err)
			}
		case failures > 0:
			s.log.Info("the keys that verify tokens could be fetched again",
				"url", s.redacted, "after failures", failures)
			failures = 0
		}
		if !s.awaitNext(ctx, pause, err == nil) {
			return
		}
	}
}

// fetchOnce fetches the keys, and wakes the tokens that wait for them.
func (s *Set) fetchOnce(ctx context.Context) error {
	keys, err := s.download(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys = keys
	}
	s.err = err
	close(s.fetch.done)
	s.fetch = nil
	return err
}

// awaitNext waits until it is time for the next fetch; false if the context has ended. After a failure,
// tokens of unknown keys do not bring the next fetch forward: it comes soon anyway.
func (s *Set) awaitNext(ctx context.Context, pause time.Duration, fetched bool) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	wanted := s.wanted
	if !fetched {
		wanted = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wanted:
		// Without a fetch that find has announced, the limit was reached and its tokens were answered. Tokens
		// that follow have use for a fetch as soon as the limit allows one.
		if !s.isFetching() && s.asks.Wait(ctx) != nil {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetch == nil {
		s.fetch = newFetch()
	}
	return true
}

func (s *Set) isFetching() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetch != nil
}

// Find is a handlers.KeySet. It may wait for a fetch, at most 5 s.
func (s *Set) Find(ctx context.Context, kid, alg string) ([]jwt.VerificationKey, error) {
	found, fetch, err := s.findOrFetch(kid, alg)
	if fetch == nil {
		return found, err
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-fetch.done:
		found, _, err = s.match(kid, alg)
		return found, err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, handlers.ErrNoKeys
	}
}

// findOrFetch returns keys, or the fetch that may bring them, or an error that says why there are neither.
func (s *Set) findOrFetch(kid, alg string) ([]jwt.VerificationKey, *fetch, error) {
	found, known, err := s.match(kid, alg)
	if known {
		return found, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetch != nil {
		return nil, s.fetch, nil
	}
	if s.err == nil && s.asks.Allow() {
		s.fetch = newFetch()
	}
	select {
	case s.wanted <- struct{}{}:
	default: // Run has yet to take the last one
	}
	return nil, s.fetch, err
}

// match returns the keys with this id, or all keys if the token names none, as far as they are for the
// token's algorithm. known: the set has keys with this id, be they for this algorithm or not.
func (s *Set) match(kid, alg string) (found []jwt.VerificationKey, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range s.keys {
		if kid == "" || key.kid == kid {
			known = true
			if key.alg == "" || key.alg == alg {
				found = append(found, key.public)
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, true, nil
	case s.err != nil && !known:
		return nil, false, handlers.ErrNoKeys
	}
	return nil, known, handlers.ErrUnknownKey
}
