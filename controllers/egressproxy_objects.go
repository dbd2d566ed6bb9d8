package controllers

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// lookUp finds what is there under the name of a planned object. What the cache does not hold, or
// holds without our label, is asked for once more, by metadata.
func (r *EgressProxyReconciler) lookUp(ctx context.Context, o plan.Object) (pair, error) {
	live, err := r.cached(ctx, o)
	if err != nil {
		return pair{}, err
	}
	if live != nil && isOfProxy(live) {
		return pair{planned: o, live: live, uid: live.GetUID()}, ownedByNobody(o, live)
	}
	partial, err := r.metaOfKind(o.Kind)
	if err != nil {
		return pair{}, err
	}
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, partial); err != nil {
		if apierrors.IsNotFound(err) {
			return pair{planned: o}, nil
		}
		return pair{}, fmt.Errorf("get %s %s: %w", o.Kind, o.Name, err)
	}
	if !isOfProxy(partial) && !wasApplied(partial) {
		return pair{}, foreign(o, "does not belong to MCP Warden")
	}
	return pair{planned: o, uid: partial.UID}, ownedByNobody(o, partial)
}

// cached is what the cache holds of an object, of a Secret its metadata; nil where it holds none.
func (r *base) cached(ctx context.Context, o plan.Object) (client.Object, error) {
	var live client.Object = plan.NewLive(o.Kind)
	if o.Kind == "Secret" {
		partial, err := r.metaOfKind(o.Kind)
		if err != nil {
			return nil, err
		}
		live = partial
	}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, live)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", o.Kind, o.Name, err)
	}
	return live, nil
}

// metaOfKind is an empty object of a kind that plans hold, to be read by its metadata alone.
func (r *base) metaOfKind(kind string) (*metav1.PartialObjectMetadata, error) {
	gvk, err := apiutil.GVKForObject(plan.NewLive(kind), r.Client.Scheme())
	if err != nil {
		return nil, err
	}
	out := &metav1.PartialObjectMetadata{}
	out.SetGroupVersionKind(gvk)
	return out, nil
}

// ownedByNobody refuses an object that somebody controls: nothing owns what serves a namespace.
func ownedByNobody(o plan.Object, live client.Object) error {
	if ref := metav1.GetControllerOfNoCopy(live); ref != nil {
		return foreign(o, fmt.Sprintf("belongs to %s %s", ref.Kind, ref.Name))
	}
	return nil
}

// foreign is the conflict over a name that the egress proxy needs.
func foreign(o plan.Object, why string) error {
	return conflictOver(fmt.Sprintf("%s %s/%s is in the way of the egress proxy: it %s and is left untouched: delete it", o.Kind, o.Namespace, o.Name, why))
}

// versionOf tells the versions of an object apart.
func versionOf(o client.Object) string { return string(o.GetUID()) + "/" + o.GetResourceVersion() }

// known are the versions of a namespace's Secrets that were read and found to be as they should.
func (r *EgressProxyReconciler) known(namespace string) map[string]string {
	out, _ := r.intact.LoadOrStore(namespace, map[string]string{})
	return out.(map[string]string)
}

func (r *EgressProxyReconciler) isIntact(secret client.Object, digest string) bool {
	return r.known(secret.GetNamespace())[secret.GetName()] == versionOf(secret)+"/"+digest
}

func (r *EgressProxyReconciler) remember(secret client.Object, digest string) {
	r.known(secret.GetNamespace())[secret.GetName()] = versionOf(secret) + "/" + digest
}

// putAccessList writes the access list if it is not as planned. The cache holds no values, so that a
// version that is new to us is read once.
func (r *EgressProxyReconciler) putAccessList(ctx context.Context, pair pair, digest string) error {
	if pair.live != nil && r.isIntact(pair.live, digest) {
		return nil
	}
	live := &corev1.Secret{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: pair.planned.Namespace, Name: pair.planned.Name}, live)
	switch {
	case apierrors.IsNotFound(err):
		pair.live, pair.uid = nil, ""
	case err != nil:
		return err
	default:
		live.SetManagedFields(nil)
		pair.live, pair.uid = live, live.UID
	}
	applied, _, err := r.put(ctx, pair)
	if apierrors.IsInvalid(err) && pair.live != nil { // somebody made it immutable
		return cmp.Or(r.deleteSecret(ctx, live), err) // it is made anew when it is tried again
	}
	if err != nil {
		return err
	}
	r.remember(applied, digest)
	return nil
}

// deleteSecret deletes a Secret, and none that took its place.
func (r *base) deleteSecret(ctx context.Context, secret *corev1.Secret) error {
	err := r.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}, uncached)
	return client.IgnoreNotFound(err)
}
