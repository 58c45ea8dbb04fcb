package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"net/http"
	"strings"
	"sync"
)

// Secret signs requests: HMAC-SHA256 or Ed25519.
type Secret struct {
	key  []byte // HMAC
	priv ed25519.PrivateKey
}

// Sizes of an HMAC key, in bytes, as the specification has them.
const (
	leastKey = 24
	mostKey  = 64
)

// ParseSecret reads "whsec_" + base64 (HMAC, 24 to 64 bytes) or "whsk_" + base64 (Ed25519, a seed of 32 bytes or
// a private key of 64). Errors do not show it.
func ParseSecret(s string) (Secret, error) {
	kind, text := "", s
	if i := strings.IndexByte(s, '_'); i >= 0 {
		kind, text = s[:i+1], s[i+1:]
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		if raw, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			return Secret{}, errors.New("webhook secret: want whsec_ or whsk_ and base64; make one with `leat init`")
		}
	}
	switch kind {
	case "whsec_":
		if len(raw) < leastKey || len(raw) > mostKey {
			return Secret{}, errors.New("webhook secret: whsec_ wants 24 to 64 bytes in base64; make one with `leat init`")
		}
		return Secret{key: raw}, nil
	case "whsk_":
		switch len(raw) {
		case ed25519.SeedSize:
			return Secret{priv: ed25519.NewKeyFromSeed(raw)}, nil
		case ed25519.PrivateKeySize:
			return Secret{priv: ed25519.PrivateKey(raw)}, nil
		}
		return Secret{}, errors.New("webhook secret: whsk_ wants an Ed25519 seed of 32 bytes or private key of 64 in base64")
	}
	return Secret{}, errors.New("webhook secret: want whsec_ (HMAC) or whsk_ (Ed25519) and base64; make one with `leat init`")
}

// Public returns "whpk_" and the public key that verifies an Ed25519 secret's signatures; empty for HMAC.
func (s Secret) Public() string {
	if s.priv == nil {
		return ""
	}
	return "whpk_" + base64.StdEncoding.EncodeToString(s.priv.Public().(ed25519.PublicKey))
}

// String hides the secret.
func (s Secret) String() string { return "***" }

// GoString hides the secret.
func (s Secret) GoString() string { return "***" }

type signer struct {
	priv   ed25519.PrivateKey
	hashes sync.Pool // of hash.Hash, keyed
}

func newSigner(s Secret) *signer {
	g := &signer{priv: s.priv}
	if s.priv == nil {
		g.hashes.New = func() any { return hmac.New(sha256.New, s.key) }
	}
	return g
}

// signatures returns the header's value: one signature per secret over "id.timestamp.body".
func signatures(signers []*signer, id, stamp string, parts [][]byte) string {
	out := make([]byte, 0, 64*len(signers))
	prefix := []byte(id + "." + stamp + ".")
	for i, g := range signers {
		if i > 0 {
			out = append(out, ' ')
		}
		if g.priv != nil {
			message := prefix[:len(prefix):len(prefix)]
			for _, p := range parts {
				message = append(message, p...)
			}
			out = base64.StdEncoding.AppendEncode(append(out, "v1a,"...), ed25519.Sign(g.priv, message))
			continue
		}
		h := g.hashes.Get().(hash.Hash)
		h.Reset()
		h.Write(prefix)
		for _, p := range parts {
			h.Write(p)
		}
		var sum [sha256.Size]byte
		out = base64.StdEncoding.AppendEncode(append(out, "v1,"...), h.Sum(sum[:0]))
		g.hashes.Put(h)
	}
	return string(out)
}

func setBasic(h http.Header, user, password string) {
	h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}
