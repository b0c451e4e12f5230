package jwks

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
	"net/http"
	"slices"

	"github.com/MicahParks/jwkset"
)

const maxBytes = 1 << 20 // of the endpoint's answer

// key is a published key that verifies tokens.
type key struct {
	kid, alg string // empty: the set does not say
	public   crypto.PublicKey
}

// download asks the endpoint. Keys that can't verify tokens are left out.
func (s *Set) download(ctx context.Context) ([]key, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxBytes {
		return nil, fmt.Errorf("it answers more than %d bytes", maxBytes)
	}
	return s.parse(text)
}

func (s *Set) parse(text []byte) ([]key, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New("it answers no JSON Web Key Set")
	}
	var keys []key
	for _, raw := range *set.Keys {
		options := jwkset.JWKMarshalOptions{Private: true}
		jwk, err := jwkset.NewJWKFromRawJSON(raw, options, jwkset.JWKValidateOptions{})
		if err != nil {
			s.log.Debug("a published key is not used", "url", s.redacted, "error", err)
			continue
		}
		if public := verifyingKey(jwk); public != nil {
			keys = append(keys, key{jwk.Marshal().KID, jwk.Marshal().ALG.String(), public})
		}
	}
	return keys, nil
}

// verifyingKey returns the key with which signatures are verified; nil if this key is for something else.
func verifyingKey(jwk jwkset.JWK) crypto.PublicKey {
	fields := jwk.Marshal()
	if fields.USE != "" && fields.USE != jwkset.UseSig {
		return nil
	}
	if len(fields.KEYOPS) > 0 && !slices.Contains(fields.KEYOPS, jwkset.KeyOpsVerify) {
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
