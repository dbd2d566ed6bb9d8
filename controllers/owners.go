package controllers

import (
	"context"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/owners"
)

// What fills Secrets is read where it is there, one object at a time, and never watched.
// +kubebuilder:rbac:groups=external-secrets.io,resources=externalsecrets,verbs=get
// +kubebuilder:rbac:groups=cert-manager.io,resources=certificates,verbs=get

const (
	// ownerAge is how old what is known of an owner may get. No event tells of a change.
	ownerAge = 5 * time.Minute
	// ownerTimeout bounds the reading of one.
	ownerTimeout = 10 * time.Second
)

// ownerReader reads the objects that fill Secrets. What it learns is no more than a hint: that one cannot be read
// never fails a reconcile.
type ownerReader struct {
	live   client.Reader
	mapper meta.RESTMapper
	now    func() time.Time
	// age is how old what is known may get.
	age time.Duration

	mu   sync.Mutex
	seen map[ownerName]ownerSeen
}

type ownerName struct {
	kind            schema.GroupKind
	namespace, name string
}

type ownerSeen struct {
	at    time.Time
	owner v1alpha1.SecretOwner
}

// look completes an owner, where there is one, with how fresh it is, and says after how long to look
// again; zero for never.
func (o *ownerReader) look(ctx context.Context, namespace string, owner *v1alpha1.SecretOwner) (*v1alpha1.SecretOwner, time.Duration) {
	kind, told := owners.Kind(owner)
	if !told {
		return owner, 0
	}
	name, now := ownerName{kind, namespace, owner.Name}, o.now()
	known, ok := o.remembered(name)
	if ok && now.Sub(known.at) < o.age {
		return new(known.owner), o.age
	}
	fresh, err := o.read(ctx, name, *owner)
	gone := apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
	switch {
	case err == nil:
		known.owner = fresh
	case gone || !ok:
		known.owner = *owner
	}
	if err != nil && !gone { // what was known of it stands
		ctrl.LoggerFrom(ctx).Info("What fills a Secret cannot be read", "kind", kind.String(), "name", name.name, "error", err.Error())
	}
	known.at = now
	o.remember(name, known)
	return new(known.owner), o.age
}

func (o *ownerReader) remembered(name ownerName) (ownerSeen, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.seen[name]
	return known, ok
}

// remember keeps what is known of an owner, and forgets those that nobody asked for lately.
func (o *ownerReader) remember(name ownerName, known ownerSeen) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.seen, func(_ ownerName, seen ownerSeen) bool { return known.at.Sub(seen.at) > 4*o.age })
	o.seen[name] = known
}

func (o *ownerReader) read(ctx context.Context, name ownerName, owner v1alpha1.SecretOwner) (v1alpha1.SecretOwner, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	mapping, err := o.mapper.RESTMapping(name.kind) // whichever version is served now
	if err != nil {
		return owner, err
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := o.live.Get(ctx, client.ObjectKey{Namespace: name.namespace, Name: name.name}, object); err != nil {
		return owner, err
	}
	owner.APIVersion = mapping.GroupVersionKind.GroupVersion().String()
	return owners.Freshness(owner, object.Object), nil
}
