package controllers

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/owners"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// Secrets are watched by metadata alone and read one by one, only those that a spec names.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch

// maxVariable is how many bytes the kernel takes for one variable, its name, '=' and the closing NUL
// included (MAX_ARG_STRLEN, 32 pages; see execve(2)).
const maxVariable = 131072

// value is what is known of one value of a Secret, and nothing of the value itself.
type value struct {
	// digest under the installation's key.
	digest string
	// size in bytes.
	size int
	// text tells whether it is UTF-8 without a NUL.
	text bool
	// notAfter is until when the certificate is valid that the value is known to be; zero for none.
	notAfter time.Time
}

// secretValues are the values of one Secret.
type secretValues struct {
	// meta of the Secret; nil where there is none.
	meta *metav1.PartialObjectMetadata
	// values by key, of the keys that were asked for and are there.
	values map[string]value
}

// sources reads Secrets and forgets their values at once: what it keeps are digests, each for one
// version of a Secret, so that one that did not change is not read again.
type sources struct {
	cache, live client.Reader

	mu     sync.Mutex
	seen   map[types.NamespacedName]version
	wholes map[types.NamespacedName]whole
}

// whole is what is known of a Secret as a whole: of a snapshot.
type whole struct {
	uid             types.UID
	resourceVersion string
	keyID           string
	// digest of all values together.
	digest string
	// immutable says whether the API server keeps everybody from changing them.
	immutable bool
}

// version of a Secret, with what is known of its values.
type version struct {
	uid             types.UID
	resourceVersion string
	keyID           string
	values          map[string]value
}

func newSources(cache, live client.Reader) *sources {
	return &sources{cache: cache, live: live, seen: map[types.NamespacedName]version{}, wholes: map[types.NamespacedName]whole{}}
}

// secretMeta is an empty object that the cache fills with the metadata of a Secret.
func secretMeta() *metav1.PartialObjectMetadata {
	out := &metav1.PartialObjectMetadata{}
	out.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return out
}

// look says what is known of some keys of a Secret.
func (s *sources) look(ctx context.Context, key rotation.Key, name types.NamespacedName, keys []string) (secretValues, error) {
	meta := secretMeta()
	if err := s.cache.Get(ctx, name, meta); err != nil {
		if apierrors.IsNotFound(err) {
			s.forget(name)
			return secretValues{}, nil
		}
		return secretValues{}, fmt.Errorf("get metadata of Secret %s: %w", name, err)
	}
	if values, ok := s.remembered(name, meta, key.ID(), keys); ok {
		return secretValues{meta: meta, values: values}, nil
	}
	secret := &corev1.Secret{}
	if err := s.live.Get(ctx, name, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return secretValues{}, nil
		}
		return secretValues{}, fmt.Errorf("get Secret %s: %w", name, err)
	}
	meta.ObjectMeta = secret.ObjectMeta
	return secretValues{meta: meta, values: s.remember(name, secret, key, keys)}, nil
}

func (s *sources) remembered(name types.NamespacedName, meta *metav1.PartialObjectMetadata, keyID string, keys []string) (map[string]value, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.seen[name]
	if !ok || v.uid != meta.UID || v.resourceVersion != meta.ResourceVersion || v.keyID != keyID {
		return nil, false
	}
	out := map[string]value{}
	for _, k := range keys {
		known, ok := v.values[k]
		if !ok {
			return nil, false
		}
		if known.digest != "" {
			out[k] = known
		}
	}
	return out, true
}

// remember keeps what is known of the keys that were asked for; of one that is not there, that it is not.
func (s *sources) remember(name types.NamespacedName, secret *corev1.Secret, key rotation.Key, keys []string) map[string]value {
	out, kept := map[string]value{}, map[string]value{}
	for _, k := range keys {
		data, ok := secret.Data[k]
		if !ok {
			kept[k] = value{}
			continue
		}
		v := digestOf(key, data)
		if secret.Type == corev1.SecretTypeTLS && k == corev1.TLSCertKey {
			v.notAfter, _ = owners.NotAfter(data)
		}
		kept[k], out[k] = v, v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.seen[name]; ok && v.uid == secret.UID && v.resourceVersion == secret.ResourceVersion && v.keyID == key.ID() {
		for k, known := range v.values { // asked for by another server
			if _, ok := kept[k]; !ok {
				kept[k] = known
			}
		}
	}
	s.seen[name] = version{uid: secret.UID, resourceVersion: secret.ResourceVersion, keyID: key.ID(), values: kept}
	return out
}

func (s *sources) forget(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, name)
	delete(s.wholes, name)
}

// lookAtAll says what is known of a Secret as a whole, given its metadata.
func (s *sources) lookAtAll(ctx context.Context, key rotation.Key, meta *metav1.PartialObjectMetadata) (whole, error) {
	name := client.ObjectKeyFromObject(meta)
	s.mu.Lock()
	known, ok := s.wholes[name]
	s.mu.Unlock()
	if ok && known.uid == meta.UID && known.resourceVersion == meta.ResourceVersion && known.keyID == key.ID() {
		return known, nil
	}
	secret := &corev1.Secret{}
	if err := s.live.Get(ctx, name, secret); err != nil {
		return whole{}, fmt.Errorf("get Secret %s: %w", name, err)
	}
	values := map[string]value{}
	for k, data := range secret.Data {
		values[k] = digestOf(key, data)
	}
	known = whole{
		uid: secret.UID, resourceVersion: secret.ResourceVersion, keyID: key.ID(),
		digest: together(key, values), immutable: secret.Immutable != nil && *secret.Immutable,
	}
	s.learn(name, known)
	return known, nil
}

// learn remembers a Secret as a whole.
func (s *sources) learn(name types.NamespacedName, known whole) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wholes[name] = known
}

func digestOf(key rotation.Key, data []byte) value {
	return value{
		digest: key.Digest(map[string][]byte{"": data}),
		size:   len(data),
		text:   utf8.Valid(data) && !bytes.Contains(data, []byte{0}),
	}
}

// together is the digest of several values, by name, made of the digests of each.
func together(key rotation.Key, values map[string]value) string {
	digests := make(map[string][]byte, len(values))
	for name, v := range values {
		digests[name] = []byte(v.digest)
	}
	return key.Digest(digests)
}

// read returns the values of a Secret, for a copy to be made of some at once, with the digest of each.
func (s *sources) read(ctx context.Context, key rotation.Key, name types.NamespacedName) (map[string][]byte, map[string]value, error) {
	secret := &corev1.Secret{}
	if err := s.live.Get(ctx, name, secret); err != nil {
		return nil, nil, fmt.Errorf("get Secret %s: %w", name, err)
	}
	known := make(map[string]value, len(secret.Data))
	for k, data := range secret.Data {
		known[k] = digestOf(key, data)
	}
	return secret.Data, known, nil
}
