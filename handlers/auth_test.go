package handlers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestAClientThatLeavesWhileItsKeyIsFetchedIsNotToldThatItsTokenIsBad(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	tokens := NewTokens(TokenOptions{KeySet: func(ctx context.Context, _, _ string) ([]jwt.VerificationKey, error) {
		leave()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	made := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	head, err := made.SigningString()
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64) // it is never looked at
	_, err = tokens.User(ctx, head+"."+made.EncodeSegment(signature))
	if p := problemOf(err); !errors.Is(err, context.Canceled) || p.Code != "given_up" {
		t.Errorf("%v: %s", err, p.Code)
	}
}
