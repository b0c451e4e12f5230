package fanout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"rollcall/lua"
)

// OnceFor is how long an answer is remembered for requests that come again.
const OnceFor = 5 * time.Minute

// Errors of Once.
var (
	ErrUnderWay    = errors.New("fanout: a request with this key is under way, or its outcome was lost")
	ErrOtherAnswer = errors.New("fanout: a request with this key asked for something else")
)

// Once does something at most once for a key, on whichever instance it is asked for, within OnceFor: the first gets done, and every other
// gets its answer. Of a do that fails nothing is remembered, unless it may
// have had an effect. fingerprint tells requests apart that wrongly share a key. again: the answer is
// that of an earlier request.
func (r *Router) Once(ctx context.Context, key string, fingerprint []byte, do func() (answer []byte, err error)) (answer []byte, again bool, err error) {
	hash := sha256.Sum256([]byte(key))
	name, print := r.redis.Keys.Once(hex.EncodeToString(hash[:])), hex.EncodeToString(fingerprint)
	stored, err := r.claim(ctx, name, print)
	if err != nil {
		return nil, false, err
	}
	if stored != "" {
		first, answer, _ := strings.Cut(stored, " ")
		switch {
		case first != print:
			return nil, false, ErrOtherAnswer
		case answer == "":
			return nil, false, ErrUnderWay
		}
		return []byte(answer), true, nil
	}
	answer, err = do()
	if errors.Is(err, ErrUnreachable) {
		return nil, false, err // it may have got through: the claim stays, and keeps it from coming twice
	}
	if err != nil {
		answer = nil
	}
	// The answer is the caller's whatever becomes of remembering it, which goes on if the caller has gone away: or a repeat would hear nothing.
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.redis.Timeout)
	defer cancel()
	if settled := lua.Settle.Exec(settling, r.redis.Client, []string{name}, []string{print, string(answer), onceFor}).Error(); settled != nil {
		r.log.Warn("remember an answer", "error", settled)
	}
	return answer, false, err
}

// claim returns what is stored of an earlier request; empty: there was none, and this one is claimed.
func (r *Router) claim(ctx context.Context, name, print string) (stored string, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.redis.Timeout)
	defer cancel()
	reply, err := lua.Claim.Exec(ctx, r.redis.Client, []string{name}, []string{print, onceFor}).ToArray()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if len(reply) < 2 {
		return "", nil
	}
	return reply[1].ToString()
}

var onceFor = fmt.Sprint(OnceFor.Milliseconds())
