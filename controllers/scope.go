package controllers

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
	"github.com/mcpwarden/mcp-warden/internal/scope"
)

// limitCache keeps the cache within namespaces. Outside of them it holds three Services, those of the API server,
// of the cluster's DNS and of the canary, and the pods and the ConfigMap of the probers.
func limitCache(opts *cache.Options, namespaces []string, clusterDNS types.NamespacedName, own string) error {
	outside, err := scope.ServicesOutside(namespaces, clusterDNS.Namespace, clusterDNS.Name)
	if err != nil {
		return err
	}
	opts.DefaultNamespaces = map[string]cache.Config{}
	for _, namespace := range namespaces {
		opts.DefaultNamespaces[namespace] = cache.Config{}
	}
	services := maps.Clone(opts.DefaultNamespaces)
	for namespace, name := range outside {
		services[namespace] = cache.Config{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name)}
	}
	if _, ok := services[own]; !ok {
		services[own] = cache.Config{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, probe.CanaryName)}
	}
	withOwn := maps.Clone(opts.DefaultNamespaces)
	withOwn[own] = cache.Config{}
	for kind, config := range opts.ByObject {
		switch kind.(type) {
		case *corev1.Service:
			config.Namespaces = services
		case *corev1.Pod, *corev1.ConfigMap:
			config.Namespaces = withOwn
		}
		opts.ByObject[kind] = config
	}
	return nil
}

// access finds out which namespaces the operator may read. One that it may not would keep every cache from ever
// being complete, and so hold up the others: whoever administers a namespace could stop the
// operator for all by deleting its Role there, or the namespace.
type access struct {
	reader client.Client
	kinds  []cachedKind
}

// cachedKind is a kind that a cache holds, or what it holds of it.
type cachedKind struct {
	kind client.Object
	of   fields.Selector
}

// newAccess knows the kinds that a cache holds of every namespace.
func newAccess(reader client.Client, opts cache.Options) (*access, error) {
	a := &access{reader: reader, kinds: []cachedKind{{kind: &v1alpha1.MCPServer{}}}}
	for kind, config := range opts.ByObject {
		namespaced, err := reader.IsObjectNamespaced(kind)
		if err != nil {
			return nil, fmt.Errorf("find kind %T: %w", kind, err)
		}
		if namespaced && config.Namespaces == nil {
			a.kinds = append(a.kinds, cachedKind{kind, config.Field})
		}
	}
	return a, nil
}

// split tells the namespaces that may be read from those that may not.
func (a *access) split(ctx context.Context, namespaces []string) (readable, forbidden []string, err error) {
	for _, namespace := range namespaces {
		ok, err := a.mayRead(ctx, namespace)
		switch {
		case err != nil:
			return nil, nil, err
		case ok:
			readable = append(readable, namespace)
		default:
			forbidden = append(forbidden, namespace)
		}
	}
	return readable, forbidden, nil
}

func (a *access) mayRead(ctx context.Context, namespace string) (bool, error) {
	for _, cached := range a.kinds {
		gvk, err := apiutil.GVKForObject(cached.kind, a.reader.Scheme())
		if err != nil {
			return false, err
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk)
		err = a.reader.List(ctx, list, &client.ListOptions{Namespace: namespace, FieldSelector: cached.of, Limit: 1})
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("list %s in namespace %s: %w", gvk.Kind, namespace, err)
		}
	}
	return true, nil
}

// awaitAccess ends the operator once a namespace that it left out may be read, because caches are
// opened when it starts. It runs in every replica.
type awaitAccess struct {
	access    *access
	forbidden []string
	every     time.Duration
}

// NeedLeaderElection is false: every replica has caches.
func (w *awaitAccess) NeedLeaderElection() bool { return false }

// Start looks until the operator stops, or returns an error to stop it.
func (w *awaitAccess) Start(ctx context.Context) error {
	ctrl.Log.Error(nil, "MCPServers of these namespaces are left alone: the operator may not read them. "+
		"Install again with the right list of namespaces", "namespaces", w.forbidden)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		readable, _, err := w.access.split(ctx, w.forbidden)
		if err != nil {
			continue // the API server may be away for a while
		}
		if len(readable) > 0 {
			return fmt.Errorf("to be started again: namespaces that were left out may be read now: %s", strings.Join(readable, ", "))
		}
	}
}

// limit narrows the namespaces of an operator that has a list of them down to those that it may read, and its cache to
// these. It returns what waits for the others; nil where there are none.
func limit(config *rest.Config, opts *Options) (*awaitAccess, error) {
	if len(opts.Namespaces) == 0 {
		return nil, nil
	}
	reader, err := client.New(config, client.Options{Scheme: opts.Manager.Scheme})
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	a, err := newAccess(reader, opts.Manager.Cache)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), reconcileTimeout)
	defer cancel()
	readable, forbidden, err := a.split(ctx, opts.Namespaces)
	if err != nil {
		return nil, err
	}
	if len(readable) == 0 { // a cache of no namespace would be one of all
		return nil, fmt.Errorf("the operator may read none of %s", strings.Join(forbidden, ", "))
	}
	opts.Namespaces = readable
	if err := limitCache(&opts.Manager.Cache, readable, opts.ClusterDNS, opts.Namespace); err != nil || len(forbidden) == 0 {
		return nil, err
	}
	return &awaitAccess{access: a, forbidden: forbidden, every: opts.BlockedRetry}, nil
}
