package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// objectMeta of an object that has the server's name.
func named(server *v1alpha1.MCPServer) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: server.Namespace, Name: server.Name}
}

// children returns one object of each kind that a server of two replicas has, by its name.
func children(server *v1alpha1.MCPServer) []client.Object {
	return []client.Object{
		&networkingv1.NetworkPolicy{ObjectMeta: named(server)},
		&corev1.ServiceAccount{ObjectMeta: named(server)},
		&corev1.Service{ObjectMeta: named(server)},
		&policyv1.PodDisruptionBudget{ObjectMeta: named(server)},
		&appsv1.Deployment{ObjectMeta: named(server)},
	}
}

func kindOf(obj client.Object) string {
	name := fmt.Sprintf("%T", obj)
	return name[strings.LastIndex(name, ".")+1:]
}

// settled creates a server and waits until its objects are there and the operator is calm.
func settled(t *testing.T, o *operator, server *v1alpha1.MCPServer) {
	t.Helper()
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	o.calm(t, server.Namespace)
}

// eventsOf lists the events about a server that have a reason.
func eventsOf(t *testing.T, server *v1alpha1.MCPServer, reason string) []eventsv1.Event {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := admin.List(t.Context(), list, client.InNamespace(server.Namespace)); err != nil {
		t.Fatalf("list events: %v", err)
	}
	return slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool {
		return e.Reason != reason || e.Regarding.Name != server.Name || e.Regarding.Kind != "MCPServer"
	})
}

func TestNewServer(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Labels = map[string]string{"app.kubernetes.io/instance": "gitops"}
	server.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "x"}
	server.Spec.Replicas = new(int32(2))
	settled(t, o, server)

	if len(server.Finalizers) > 0 {
		t.Errorf("finalizers %v", server.Finalizers)
	}
	for _, child := range children(server) {
		get(t, child)
		if !plan.IsOwnedBy(child, server) {
			t.Errorf("%s: owners %v", kindOf(child), child.GetOwnerReferences())
		}
		for _, key := range []string{"app.kubernetes.io/instance", "argocd.argoproj.io/tracking-id"} {
			if child.GetLabels()[key]+child.GetAnnotations()[key] != "" {
				t.Errorf("%s: %s was copied from the MCPServer", kindOf(child), key)
			}
		}
	}
	get(t, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.BaselineName}})
}

func TestFirstPass(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Replicas = new(int32(2))
	settled(t, o, server)

	var order []string
	for _, req := range o.writes(server.Namespace) {
		if req.resource != "events" {
			order = append(order, req.resource+"/"+req.name)
		}
	}
	want := []string{"networkpolicies/mcp-warden-default-deny", "networkpolicies/web", "configmaps/mcp-warden-canary", "serviceaccounts/web", "services/web",
		"poddisruptionbudgets/web", "deployments/web", "mcpservers/status/web"}
	if len(order) < len(want) || !slices.Equal(order[:len(want)], want) {
		t.Errorf("first writes %v, want %v", order, want)
	}
	// The Deployment's controller acts, the pods turn up one by one, and so does the verdict over each.
	if n := len(order) - len(want); n > 4 {
		t.Errorf("%d more writes until the status settled, want at most 4: %v", n, order[len(want):])
	}
	if reads := o.in(server.Namespace, func(r request) bool { return r.verb == "get" }); len(reads) > 4 {
		t.Errorf("read %v, want at most one look for each name that the cache cannot tell of", reads)
	}
}

func TestFirstStatusIsUnknown(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	watch, err := newWatch(t, server)
	if err != nil {
		t.Fatal(err)
	}
	settled(t, o, server)
	for event := range watch.ResultChan() {
		first, ok := event.Object.(*v1alpha1.MCPServer)
		if !ok || len(first.Status.Conditions) == 0 {
			continue
		}
		if ready := condition(first, v1alpha1.ConditionReady); ready.Status != metav1.ConditionUnknown || ready.ObservedGeneration != first.Generation {
			t.Errorf("first Ready is %+v", ready)
		}
		if c := condition(first, v1alpha1.ConditionReconciling); c.Status != metav1.ConditionTrue {
			t.Errorf("first Reconciling is %+v", c)
		}
		if first.Status.ObservedGeneration != first.Generation {
			t.Errorf("first observedGeneration %d, want %d", first.Status.ObservedGeneration, first.Generation)
		}
		return
	}
}

func TestUnchangedServerIsNotWritten(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	before := len(o.in(server.Namespace, func(request) bool { return true }))

	edit(t, server, func(s *v1alpha1.MCPServer) { s.Labels = map[string]string{"touched": "yes"} })
	service := &corev1.Service{ObjectMeta: named(server)}
	edit(t, service, func(s *corev1.Service) { s.Annotations = map[string]string{"touched": "yes"} })
	pods := &corev1.PodList{}
	if err := admin.List(t.Context(), pods, client.InNamespace(server.Namespace)); err != nil || len(pods.Items) == 0 {
		t.Fatalf("%d pods: %v", len(pods.Items), err)
	}
	edit(t, &pods.Items[0], func(p *corev1.Pod) { p.Annotations = map[string]string{"touched": "yes"} })
	o.calm(t, server.Namespace)
	if now := o.in(server.Namespace, func(request) bool { return true }); len(now) != before {
		t.Errorf("asked for %v", now[before:])
	}
}

func TestNamesAreTheServers(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	a, b := example(namespace, "web"), example(namespace, "web-2")
	settled(t, o, a)
	settled(t, o, b)
	for _, server := range []*v1alpha1.MCPServer{a, b} {
		for _, child := range children(server) {
			if kindOf(child) == "PodDisruptionBudget" {
				continue
			}
			get(t, child)
			if !plan.IsOwnedBy(child, server) {
				t.Errorf("%s %s belongs to %v", kindOf(child), child.GetName(), child.GetOwnerReferences())
			}
		}
	}
	baseline := example(namespace, plan.BaselineName)
	if err := admin.Create(t.Context(), baseline); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.name") {
		t.Errorf("an MCPServer of the baseline's name: %v", err)
	}
}
