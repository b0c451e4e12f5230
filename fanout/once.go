package fanout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"rollcall/lua"
	"rollcall/presence"
)

// OnceFor is how long an answer is remembered for requests that come again.
const OnceFor = 5 * time.Minute

// Errors of Once. With each of them nothing was done for this request.
var (
	ErrUnderWay    = errors.New("fanout: a request with this key is under way, or its outcome was lost")
	ErrOtherAnswer = errors.New("fanout: a request with this key asked for something else")
	ErrNoClaim     = errors.New("fanout: redis can't be asked whether a request with this key came before")
	ErrKeys        = errors.New("fanout: too many answers are remembered for requests that come again")
	// presence.ErrRedisFull, with ErrNoClaim: Redis has no room to remember that this request came.
)

// Once does something at most once for a key, on whichever instance it is asked for, within OnceFor: the first gets done, and every other
// gets its answer. Of a do that fails nothing is remembered, unless it may have had an effect. fingerprint tells requests apart that
// wrongly share a key. again: the answer is that of an earlier request.
func (r *Router) Once(ctx context.Context, key string, fingerprint []byte, do func() (answer []byte, err error)) (answer []byte, again bool, err error) {
	if r.remembered.isFull(r.receiver.mirror.LiveInstances()) {
		return nil, false, ErrKeys
	}
	hash := sha256.Sum256([]byte(key))
	name, print := r.redis.Keys.Once(hex.EncodeToString(hash[:])), hex.EncodeToString(fingerprint)
	claim := print + " " + uuid.NewString()
	stored, err := r.claim(ctx, name, claim)
	if errors.Is(err, presence.ErrRedisFull) {
		return nil, false, err
	}
	if err != nil {
		r.settler.later(settlement{name: name, claim: claim}) // Redis may have it all the same: the reply was lost, or the caller went away
		return nil, false, err
	}
	if stored != "" {
		return earlierAnswer(stored, print)
	}
	answer, err = do()
	if errors.Is(err, ErrUnreachable) {
		r.remembered.add(claimBytes)
		return nil, false, err // it may have got through: the claim stays, and keeps it from coming twice
	}
	done := settlement{name: name, claim: claim}
	if err == nil {
		done.answer = string(answer)
		r.remembered.add(claimBytes + len(answer))
	}
	// The answer is the caller's whatever becomes of remembering it.
	r.settler.settle(ctx, done)
	return answer, false, err
}

// claim returns what is stored of an earlier request; empty: there was none, and this one is claimed.
func (r *Router) claim(ctx context.Context, name, claim string) (stored string, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.redis.Timeout)
	defer cancel()
	reply, err := lua.Check(lua.Claim.Exec(ctx, r.redis.Client, []string{name}, []string{claim, onceFor}))
	switch {
	case errors.Is(err, lua.ErrTaken):
		return reply[1].ToString()
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrNoClaim, err)
	}
	return "", nil
}

// earlierAnswer reads what is stored of an earlier request: its fingerprint, who claimed it, and the answer if there is one yet.
func earlierAnswer(stored, print string) (answer []byte, again bool, err error) {
	parts := strings.SplitN(stored, " ", 3)
	switch {
	case parts[0] != print:
		return nil, false, ErrOtherAnswer
	case len(parts) < 3 || parts[2] == "":
		return nil, false, ErrUnderWay
	}
	return []byte(parts[2]), true, nil
}

var onceFor = fmt.Sprint(OnceFor.Milliseconds())
