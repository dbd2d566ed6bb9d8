package controllers

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

// The order in which a cache lists things must not change what is told of them.
func TestLiveIsInOrder(t *testing.T) {
	var want compliance.Live
	for _, name := range []string{"a", "b", "c"} {
		meta := metav1.ObjectMeta{Name: name}
		want.Pods.Value = append(want.Pods.Value, corev1.Pod{ObjectMeta: meta})
		want.NetworkPolicies.Value = append(want.NetworkPolicies.Value, networkingv1.NetworkPolicy{ObjectMeta: meta})
		want.Services.Value = append(want.Services.Value, corev1.Service{ObjectMeta: meta})
		want.Ingresses.Value = append(want.Ingresses.Value, networkingv1.Ingress{ObjectMeta: meta})
		want.OtherPolicies.Value = append(want.OtherPolicies.Value, compliance.OtherPolicy{Kind: "K", Name: name})
		want.Routes.Value = append(want.Routes.Value, compliance.Route{Kind: "K", Namespace: "n", Name: name})
		want.Bindings.Value = append(want.Bindings.Value, compliance.Binding{Kind: "K", Name: name})
		want.Twins.Value = append(want.Twins.Value, compliance.Twin{Namespace: "n", Name: name})
	}
	for range 20 {
		got := compliance.Live{
			Pods: shuffled(want.Pods), NetworkPolicies: shuffled(want.NetworkPolicies), Services: shuffled(want.Services), Ingresses: shuffled(want.Ingresses),
			OtherPolicies: shuffled(want.OtherPolicies), Routes: shuffled(want.Routes), Bindings: shuffled(want.Bindings), Twins: shuffled(want.Twins),
		}
		inOrder(&got)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v", got)
		}
	}
	value := reflect.TypeFor[compliance.Live]()
	lists := 0
	for i := range value.NumField() {
		if field := value.Field(i).Type; field.Kind() == reflect.Struct {
			if inner, ok := field.FieldByName("Value"); ok && inner.Type.Kind() == reflect.Slice {
				lists++
			}
		}
	}
	if lists != 9 { // those above, and Drift, of which there is one at most
		t.Errorf("Live has %d lists: sort the new one, too", lists)
	}
}

func shuffled[T any](in compliance.Seen[[]T]) compliance.Seen[[]T] {
	out := compliance.Seen[[]T]{Value: append([]T(nil), in.Value...)}
	rand.Shuffle(len(out.Value), func(i, j int) { out.Value[i], out.Value[j] = out.Value[j], out.Value[i] })
	return out
}

// What a policy of Cilium's surely does not select it opens nothing of; whatever cannot be told counts.
func TestCiliumSelector(t *testing.T) {
	pod := map[string]string{"app": "web"}
	for _, tc := range []struct {
		selector string
		want     bool
	}{
		{`null`, true},
		{`{}`, true},
		{`{"matchLabels": {"app": "web"}}`, true},
		{`{"matchLabels": {"k8s:app": "web"}}`, true},
		{`{"matchLabels": {"any:app": "web"}}`, true},
		{`{"matchLabels": {"app": "other"}}`, false},
		{`{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "agents"}}`, true},
		{`{"matchLabels": {"io.kubernetes.pod.namespace": "kube-system"}}`, false},
		{`{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "agents", "app": "other"}}`, false},
		{`{"matchLabels": {"io.cilium.k8s.namespace.labels.team": "other"}}`, true},
		{`{"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "other"}}`, true},
		{`{"matchLabels": {"reserved:world": ""}}`, true},
		{`{"matchLabels": {"app": "not a value"}}`, true},
		{`{"matchExpressions": [{"key": "app", "operator": "In", "values": ["other", "web"]}]}`, true},
		{`{"matchExpressions": [{"key": "app", "operator": "In", "values": ["other"]}]}`, false},
		{`{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}`, false},
		{`{"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "In", "values": ["kube-system", "data"]}]}`, false},
		{`{"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["agents"]}]}`, false},
		{`{"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["data"]}]}`, true},
		{`{"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "DoesNotExist"}]}`, true},
		// A label of the pod need not count for Cilium: to the policy the pod may be without it.
		{`{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}`, true},
		{`{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}`, true},
		{`{"matchExpressions": ["nonsense"]}`, true},
	} {
		var raw any
		if err := json.Unmarshal([]byte(tc.selector), &raw); err != nil {
			t.Fatal(err)
		}
		if got := ciliumSelector(raw, "agents")(pod); got != tc.want {
			t.Errorf("%s selects the pod: %t, want %t", tc.selector, got, tc.want)
		}
	}
}
