package controllers_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

func canaryOf(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: probe.CanaryName}}
}

func baselineOf(namespace string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: plan.BaselineName}}
}

func exists(t *testing.T, obj client.Object) bool {
	t.Helper()
	err := admin.Get(t.Context(), client.ObjectKeyFromObject(obj), obj)
	if client.IgnoreNotFound(err) != nil {
		t.Fatalf("get %s %s: %v", kindOf(obj), obj.GetName(), err)
	}
	return err == nil
}

func waitGone(t *testing.T, obj client.Object) {
	t.Helper()
	eventually(t, func() string {
		if exists(t, obj) {
			return kindOf(obj) + " " + obj.GetName() + " is still there"
		}
		return ""
	})
}

// holdPod keeps a pod of a server from going, as its grace period would, until the returned function is called.
func holdPod(t *testing.T, server *v1alpha1.MCPServer) (release func()) {
	t.Helper()
	pods := &corev1.PodList{}
	eventually(t, func() string {
		if err := admin.List(t.Context(), pods, client.InNamespace(server.Namespace), client.MatchingLabels{plan.LabelServer: server.Name}); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) == 0 {
			return "the server has no pod"
		}
		return ""
	})
	pod := &pods.Items[0]
	edit(t, pod, func(p *corev1.Pod) { p.Finalizers = append(p.Finalizers, "test.example/hold") })
	return func() { edit(t, pod, func(p *corev1.Pod) { p.Finalizers = nil }) }
}

func TestDeletedServer(t *testing.T) {
	o := parallel(t)
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			server := example(newNamespace(t), "web")
			settled(t, o, server)
			release := holdPod(t, server)
			if err := admin.Delete(t.Context(), server, client.PropagationPolicy(policy)); err != nil {
				t.Fatal(err)
			}
			for _, child := range children(server)[:3] {
				if kindOf(child) == "NetworkPolicy" || policy == metav1.DeletePropagationBackground {
					waitGone(t, child)
				}
			}
			o.calm(t, server.Namespace)
			if !exists(t, baselineOf(server.Namespace)) {
				t.Fatal("a pod is still there, and the baseline is gone")
			}
			// Who takes the last isolation from a pod that is left must not succeed.
			remove(t, baselineOf(server.Namespace))
			eventually(t, func() string {
				if !exists(t, baselineOf(server.Namespace)) {
					return "the baseline was not put back"
				}
				return ""
			})
			release()
			waitGone(t, baselineOf(server.Namespace))
			waitGone(t, &appsv1.Deployment{ObjectMeta: named(server)})
		})
	}
}

func TestStoppedServerIsDeleted(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.DesiredState = v1alpha1.StateStopped
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonStopped)
	o.calm(t, server.Namespace)
	remove(t, server)
	waitGone(t, baselineOf(server.Namespace))
}

func TestBaselineStaysForOtherServers(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	a, b := example(namespace, "a"), example(namespace, "b")
	settled(t, o, a)
	settled(t, o, b)
	uid := func() types.UID {
		baseline := baselineOf(namespace)
		get(t, baseline)
		return baseline.UID
	}
	before := uid()
	remove(t, a)
	waitGone(t, &appsv1.Deployment{ObjectMeta: named(a)})
	o.calm(t, namespace)
	if uid() != before {
		t.Error("the baseline was replaced while a server needed it")
	}
}

func TestRecreatedAtOnce(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	remove(t, server)
	again := example(server.Namespace, server.Name)
	eventually(t, func() string {
		err := admin.Create(t.Context(), again)
		if apierrors.IsAlreadyExists(err) {
			return err.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	})
	eventually(t, func() string {
		for _, child := range children(again) {
			if kindOf(child) == "PodDisruptionBudget" {
				continue
			}
			if !exists(t, child) || !plan.IsOwnedBy(child, again) {
				return kindOf(child) + " is not the new server's"
			}
		}
		return ""
	})
	waitReason(t, again, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	o.calm(t, again.Namespace)
	for _, reason := range []string{v1alpha1.ReasonNameConflict, "Recreated"} {
		if n := len(eventsOf(t, again, reason)); n > 0 {
			t.Errorf("%d events %s", n, reason)
		}
	}
}

// The garbage collector takes the objects of a deleted server, and the operator learns of that before it learns
// that the server is gone: nothing of it is made again.
func TestDeletedServerSeenLate(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	release := o.hold("mcpservers")
	defer release()
	before := len(o.writes(server.Namespace))
	remove(t, server)
	for _, child := range children(server) {
		waitGone(t, child)
	}
	asked := func(r request) bool { return r.verb == "get" && r.resource == "mcpservers" }
	eventually(t, func() string {
		if len(o.in(server.Namespace, asked)) == 0 {
			return "the operator has not asked for the server"
		}
		return ""
	})
	release()
	waitGone(t, baselineOf(server.Namespace))
	o.calm(t, server.Namespace)
	for _, write := range o.writes(server.Namespace)[before:] {
		if write.verb != "delete" {
			t.Errorf("%s for a server that is gone", write)
		}
	}
}

// The last server goes while the operator is down: its baseline must not stay for ever.
func TestOrphanedBaseline(t *testing.T) {
	o, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	remove(t, server)
	waitGone(t, &appsv1.Deployment{ObjectMeta: named(server)})
	eventually(t, func() string {
		pods := &corev1.PodList{}
		if err := admin.List(t.Context(), pods, client.InNamespace(server.Namespace)); err != nil {
			t.Fatal(err)
		}
		return differs(len(pods.Items), 0)
	})
	if !exists(t, baselineOf(server.Namespace)) {
		t.Fatal("who removed the baseline?")
	}
	exclusive(t)
	waitGone(t, baselineOf(server.Namespace))
}

func TestNamespaceIsDeleted(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	release := holdPod(t, server)
	before := len(o.writes(server.Namespace))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: server.Namespace}}
	remove(t, namespace)
	eventually(t, func() string {
		get(t, namespace)
		return differs(namespace.Status.Phase, corev1.NamespaceTerminating)
	})
	// Nothing can be created there any more.
	remove(t, &corev1.ServiceAccount{ObjectMeta: named(server)})
	o.calm(t, server.Namespace)
	if writes := o.writes(server.Namespace)[before:]; len(writes) > 20 {
		t.Errorf("%d writes into a namespace that is being deleted: %v", len(writes), writes)
	}
	if !exists(t, baselineOf(server.Namespace)) {
		t.Error("a pod is still there, and the baseline is gone")
	}
	release()
	waitGone(t, namespace)
}
