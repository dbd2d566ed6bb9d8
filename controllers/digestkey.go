package controllers

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// The key of all digests is made once for an installation and kept.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create,namespace=mcp-warden-system
// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=mcp-warden-digest-key,verbs=get,namespace=mcp-warden-system

const (
	// digestKeyName is the name of the Secret, in the operator's namespace, that holds the key.
	digestKeyName = "mcp-warden-digest-key"
	// digestKeyData is the key's place in the data of that Secret.
	digestKeyData = "key"
	// digestKeySize is the size of the key in bytes.
	digestKeySize = 32
)

// digestKey reads the installation's key when it is first needed, and makes it where there is none.
type digestKey struct {
	live      client.Reader
	writer    client.Writer
	namespace string

	mu  sync.Mutex
	key *rotation.Key
}

// get returns the key. What is wrong with the Secret that holds it is an error: a key made in its
// place would make every digest another.
func (d *digestKey) get(ctx context.Context) (rotation.Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.key != nil {
		return *d.key, nil
	}
	name := types.NamespacedName{Namespace: d.namespace, Name: digestKeyName}
	secret := &corev1.Secret{}
	err := d.live.Get(ctx, name, secret)
	if apierrors.IsNotFound(err) {
		secret, err = d.create(ctx, name)
	}
	if err != nil {
		return rotation.Key{}, fmt.Errorf("get the key of all digests: %w", err)
	}
	key, err := rotation.NewKey(secret.Data[digestKeyData])
	if err != nil {
		return rotation.Key{}, fmt.Errorf("the data key %[2]q of Secret %[1]s cannot be used (%[3]w): restore it, or delete the Secret and restart the operator to have a new one made", name, digestKeyData, err)
	}
	d.key = &key
	return key, nil
}

// create makes the key; where another replica was first, that one's is the key.
func (d *digestKey) create(ctx context.Context, name types.NamespacedName) (*corev1.Secret, error) {
	material := make([]byte, digestKeySize)
	if _, err := rand.Read(material); err != nil {
		return nil, fmt.Errorf("make a random key: %w", err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name.Name, Namespace: name.Namespace, Labels: map[string]string{plan.LabelManagedBy: plan.ManagedBy}},
		Type:       corev1.SecretTypeOpaque,
		Immutable:  new(true),
		Data:       map[string][]byte{digestKeyData: material},
	}
	// Nothing reads it through the cache, which therefore need not wait for it.
	err := d.writer.Create(ctx, secret, client.FieldOwner(plan.FieldManager), client.DisableReadYourWritesConsistency)
	if apierrors.IsAlreadyExists(err) {
		err = d.live.Get(ctx, name, secret)
	}
	return secret, err
}
