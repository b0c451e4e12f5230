// Package idempotency does a request at most once for a key, on whichever instance it arrives.
//
// A [Store] first claims the key in Redis, then does the request, then stores the result under the key. Claim
// and result expire after [KeepFor]. A repeat that finds a result returns it. A repeat that finds a claim
// without a result is refused, because the request may have had an effect: the first is still in progress, or
// its instance died, or its result could not be stored.
package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"rollcall/lua"
	"rollcall/presence"
)

// KeepFor is how long Redis keeps a claim, and after that the result, of a request with a key.
const KeepFor = 5 * time.Minute

// Errors of Do. With each of them, and with presence.ErrRedisFull, nothing was done for this request.
var (
	ErrInProgress  = errors.New("idempotency: a request with this key is in progress, or its result was lost")
	ErrKeyReused   = errors.New("idempotency: this key came with another request")
	ErrTooManyKeys = errors.New("idempotency: this instance has stored as many results as it may")
	ErrUnreachable = errors.New("idempotency: redis can't say whether a request with this key came before")
)

// ErrMayHaveHappened marks an error of the function given to Do: the request failed, but may have had an
// effect. Its key is then not free again before [KeepFor] has passed.
var ErrMayHaveHappened = errors.New("idempotency: the request may have had an effect")

// Options are what a Store needs. All are required.
type Options struct {
	Redis         presence.Redis
	LiveInstances func() int // how many share the quota, this one included; at least 1
	Log           *slog.Logger
}

// Store does requests at most once for each key.
type Store struct {
	// static after construction
	redis         presence.Redis
	liveInstances func() int
	log           *slog.Logger

	quota *quota
	lost  atomic.Int64 // results that could not be stored
}

// NewStore makes a store.
func NewStore(o Options) *Store {
	return &Store{redis: o.Redis, liveInstances: o.LiveInstances, log: o.Log, quota: newQuota()}
}

// LostResults counts the requests whose result could not be stored. Until their claims expire, repeats get
// [ErrInProgress].
func (s *Store) LostResults() int64 { return s.lost.Load() }

// Do calls a function, unless a request with this key was done before, on any instance, within [KeepFor].
// In that case it returns the result of the first request, and replayed is true.
//
// The fingerprint tells requests apart: a key that comes with another fingerprint gets [ErrKeyReused]. If do
// fails, its error is returned and the key is free again, unless the error is [ErrMayHaveHappened].
// Do calls Redis before and after do. Each of these takes at most twice the timeout of Redis.
func (s *Store) Do(
	ctx context.Context, key string, fingerprint []byte, do func() ([]byte, error),
) (answer []byte, replayed bool, err error) {
	if s.quota.isFull(time.Now(), s.liveInstances()) {
		return nil, false, ErrTooManyKeys
	}
	c := s.newClaim(key, fingerprint)
	earlier, err := s.claim(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if earlier != "" {
		answer, err = resultIn(earlier, c.fingerprint)
		return answer, err == nil, err
	}
	answer, err = do()
	switch {
	case errors.Is(err, ErrMayHaveHappened):
		s.quota.spend(time.Now(), claimBytes)
	case err != nil:
		s.store(ctx, c, "")
	default:
		s.quota.spend(time.Now(), claimBytes+len(answer))
		s.store(ctx, c, string(answer))
	}
	return answer, false, err
}

// claim is what a request writes under its key before it is done.
type claim struct {
	redisKey    string
	fingerprint string
	text        string // fingerprint and an id of this attempt: only this attempt can store a result for it
}

func (s *Store) newClaim(key string, fingerprint []byte) claim {
	hash := sha256.Sum256([]byte(key))
	inHex := hex.EncodeToString(fingerprint)
	return claim{
		redisKey:    s.redis.Keys.Once(hex.EncodeToString(hash[:])),
		fingerprint: inHex,
		text:        inHex + " " + uuid.NewString(),
	}
}

// claim writes a claim. If an earlier request has the key, it returns what Redis holds of that one.
func (s *Store) claim(ctx context.Context, c claim) (earlier string, err error) {
	reply, err := lua.Check(s.redis.Exec(ctx, lua.Claim, []string{c.redisKey}, []string{c.text, keepFor}))
	switch {
	case errors.Is(err, lua.ErrTaken):
		return reply[1].ToString()
	case errors.Is(err, presence.ErrRedisFull):
		return "", err
	case err != nil:
		// Redis may have written the claim, or may still do it. If this call fails too, the key stays claimed
		// until the claim expires. We do not count that as a lost result: nothing was done.
		_ = s.tryStore(ctx, c, "")
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return "", nil
}

// store stores a result, or frees the key if the result is empty. A failed attempt is repeated once.
func (s *Store) store(ctx context.Context, c claim, result string) {
	if s.tryStore(ctx, c, result) == nil {
		return
	}
	if err := s.tryStore(ctx, c, result); err != nil {
		s.lost.Add(1)
		s.log.Warn("store the result of a request with an Idempotency-Key: repeats get 409 until it expires",
			"expires_in", KeepFor, "error", err)
	}
}

// tryStore calls Redis once, also if the caller has gone: the result is for its repeat.
func (s *Store) tryStore(ctx context.Context, c claim, result string) error {
	args := []string{c.text, result, keepFor}
	_, err := lua.Check(s.redis.Exec(context.WithoutCancel(ctx), lua.StoreResult, []string{c.redisKey}, args))
	if errors.Is(err, lua.ErrNotYours) {
		return nil // an earlier attempt has stored it, or the claim has expired
	}
	return err
}

// resultIn reads what Redis holds of an earlier request: its fingerprint, the id of the attempt, and the
// result if there is one.
func resultIn(stored, fingerprint string) ([]byte, error) {
	parts := strings.SplitN(stored, " ", 3)
	switch {
	case parts[0] != fingerprint:
		return nil, ErrKeyReused
	case len(parts) < 3 || parts[2] == "":
		return nil, ErrInProgress
	}
	return []byte(parts[2]), nil
}

// keepFor is KeepFor as the scripts take it, in milliseconds.
var keepFor = strconv.FormatInt(KeepFor.Milliseconds(), 10)
