package controllers_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// foreigners are objects of somebody else under the name of a server, with as little in them as
// there can be: nothing that an apply would have to fight over.
func foreigners(server *v1alpha1.MCPServer) []client.Object {
	labels := map[string]string{"app": "foreign"}
	return []client.Object{
		&networkingv1.NetworkPolicy{ObjectMeta: named(server)},
		&corev1.ServiceAccount{ObjectMeta: named(server)},
		&corev1.Service{ObjectMeta: named(server), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		&policyv1.PodDisruptionBudget{ObjectMeta: named(server)},
		&appsv1.Deployment{ObjectMeta: named(server), Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:v1"}}}},
		}},
	}
}

// unrolled returns an object once whoever else writes to it (the Deployment controller) is done.
func unrolled(t *testing.T, obj client.Object) client.Object {
	t.Helper()
	eventually(t, func() string {
		get(t, obj)
		if d, ok := obj.(*appsv1.Deployment); ok && d.Status.ObservedGeneration == 0 {
			return "the Deployment is not observed yet"
		}
		if b, ok := obj.(*policyv1.PodDisruptionBudget); ok && b.Status.ObservedGeneration == 0 {
			return "the PodDisruptionBudget is not observed yet"
		}
		return ""
	})
	return obj
}

// specGeneration of an object: whether somebody changed more than its status.
func untouched(t *testing.T, was client.Object) {
	t.Helper()
	is := was.DeepCopyObject().(client.Object)
	get(t, is)
	if is.GetGeneration() != was.GetGeneration() || len(is.GetLabels()) > 0 || len(is.GetOwnerReferences()) > 0 {
		t.Errorf("%s was touched: labels %v, owners %v", kindOf(is), is.GetLabels(), is.GetOwnerReferences())
	}
	for _, field := range is.GetManagedFields() {
		if field.Manager == "mcp-warden" {
			t.Errorf("%s carries fields of ours", kindOf(is))
		}
	}
}

func TestForeignObjectIsLeftAlone(t *testing.T) {
	o := parallel(t)
	for i, name := range []string{"NetworkPolicy", "ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := example(newNamespace(t), "web")
			server.Spec.Replicas = new(int32(2))
			foreign := foreigners(server)[i]
			create(t, foreign)
			version := unrolled(t, foreign).GetResourceVersion()
			create(t, server)
			c := waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonNameConflict)
			if c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, name+" "+server.Namespace+"/web") || !strings.Contains(c.Message, "delete it, or") {
				t.Errorf("Stalled is %s: %s", c.Status, c.Message)
			}
			untouched(t, foreign)
			if get(t, foreign); foreign.GetResourceVersion() != version {
				t.Error("the resourceVersion of the foreign object changed")
			}
			for _, req := range o.writes(server.Namespace) {
				if req.resource != "mcpservers/status" && req.resource != "events" {
					t.Errorf("half applied: %s", req)
				}
			}
			remove(t, foreign)
			waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
			o.calm(t, server.Namespace)
			if n := len(eventsOf(t, server, v1alpha1.ReasonNameConflict)); n != 1 {
				t.Errorf("%d events NameConflict, want 1", n)
			}
			if events := eventsOf(t, server, "Recreated"); len(events) > 0 {
				t.Errorf("nothing was there before, but: %s", events[0].Note)
			}
		})
	}
}

// A foreign object that appears between the look at its name and the apply must not be merged with.
func TestForeignObjectAppearsAtThatMoment(t *testing.T) {
	o := exclusive(t)
	resources := []string{"networkpolicies", "serviceaccounts", "services", "poddisruptionbudgets", "deployments"}
	for i, resource := range resources {
		server := example(newNamespace(t), "web")
		server.Spec.Replicas = new(int32(2))
		foreign := foreigners(server)[i]
		namespace := server.Namespace
		var once sync.Once
		var raced atomic.Bool
		o.before(func(req request) error {
			if req.namespace == namespace && req.verb == "patch" && req.resource == resource && req.name == "web" {
				once.Do(func() { raced.Store(admin.Create(context.Background(), foreign) == nil) })
			}
			return nil
		})
		create(t, server)
		waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonNameConflict)
		if !raced.Load() {
			t.Errorf("%s: the foreign object was not created in time", resource)
		}
		untouched(t, foreign)
	}
}

// An object of ours that somebody replaces between the look at it and the apply is theirs.
func TestObjectIsReplacedAtThatMoment(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	foreign, ours := foreigners(server)[1], &corev1.ServiceAccount{ObjectMeta: named(server)}
	var once sync.Once
	var raced atomic.Bool
	o.before(func(req request) error {
		if req.verb == "patch" && req.resource == "serviceaccounts" {
			once.Do(func() {
				ctx := context.Background()
				raced.Store(admin.Delete(ctx, ours) == nil && admin.Create(ctx, foreign) == nil)
			})
		}
		return nil
	})
	edit(t, &corev1.ServiceAccount{ObjectMeta: named(server)}, func(s *corev1.ServiceAccount) { s.AutomountServiceAccountToken = new(true) })
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonNameConflict)
	if !raced.Load() {
		t.Error("the object was not replaced in time")
	}
	untouched(t, foreign)
}
