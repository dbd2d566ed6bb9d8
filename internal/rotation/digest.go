// Package rotation knows versions of a server's secrets by keyed digests and decides which version
// is deployed: what is rolled, held or rolled back. It is pure: no client and no clock; time comes in
// as a value, and values of secrets are digested and go no further.
package rotation

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

const (
	// MinKeyBytes is the least that a key is made of.
	MinKeyBytes = 32

	keyIDLen = 8  // hex digits
	macLen   = 32 // hex digits
	shortLen = 16 // hex digits

	// Each use of the key is under a label of its own, so that the key's id says nothing about a digest.
	labelKeyID  = "mcpwarden.io/rotation/key-id/v1"
	labelValues = "mcpwarden.io/rotation/values/v1"

	redacted = "[digest key]"
)

// Key of an installation: whoever lacks it cannot test a guess of a secret against a digest. It
// prints as a placeholder; its material sits in a closure, where nothing that prints can follow.
type Key struct {
	mac func() hash.Hash
	id  string
}

// NewKey makes a key of at least MinKeyBytes random bytes, of which it keeps a copy.
func NewKey(material []byte) (Key, error) {
	if len(material) < MinKeyBytes {
		return Key{}, fmt.Errorf("the digest key has %d bytes, and needs at least %d", len(material), MinKeyBytes)
	}
	own := slices.Clone(material)
	k := Key{mac: func() hash.Hash { return hmac.New(sha256.New, own) }}
	k.id = k.sum(labelKeyID, nil)[:keyIDLen]
	return k, nil
}

// ID names the key (8 hex digits) and reveals nothing of it; empty for the zero Key.
func (k Key) ID() string { return k.id }

// Digest of values by name, written "<key id>-<32 hex digits>". It is the same for the same names
// and values, whatever their order. It panics on the zero Key: a digest without a key could be guessed.
func (k Key) Digest(values map[string][]byte) string {
	return k.id + "-" + k.sum(labelValues, values)[:macLen]
}

func (k Key) sum(label string, values map[string][]byte) string {
	h := k.mac()
	write(h, label)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		write(h, name)
		write(h, values[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// write puts the length before the bytes, so that no two lists are written alike.
func write[T string | []byte](h hash.Hash, b T) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write([]byte(b))
}

// Format implements fmt.Formatter for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer.
func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Key) GoString() string { return redacted }

// MarshalText implements encoding.TextMarshaler, and with it what JSON and YAML show.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// KeyIDOf returns the id of the key that a digest was made with.
func KeyIDOf(digest string) (string, error) {
	id, mac, ok := strings.Cut(digest, "-")
	if !ok || !isHex(id, keyIDLen) || !isHex(mac, macLen) {
		return "", errors.New("not a digest: want 8 hex digits, a hyphen, 32 hex digits")
	}
	return id, nil
}

// Short form of a digest, for names and labels of objects: 16 hex digits; empty for what is no digest.
func Short(digest string) string {
	if _, err := KeyIDOf(digest); err != nil {
		return ""
	}
	return digest[keyIDLen+1:][:shortLen]
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}
