package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Live is an object as a client reads it.
type Live interface {
	metav1.Object
	runtime.Object
}

// NewLive returns an empty object of a kind that plans hold. It panics on any other.
func NewLive(kind string) Live {
	switch kind {
	case "ConfigMap":
		return &corev1.ConfigMap{}
	case "Deployment":
		return &appsv1.Deployment{}
	case "NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "Secret":
		return &corev1.Secret{}
	case "Service":
		return &corev1.Service{}
	case "ServiceAccount":
		return &corev1.ServiceAccount{}
	}
	panic("no plan holds a " + kind)
}

// Expected returns the live object as it would be if nobody but the operator had touched what the
// operator answers for. What belongs to others stays as it is: foreign labels and annotations of the
// object, the replicas where an autoscaler decides, the mark of kubectl rollout restart on the pod template,
// and what the API server allocates. It panics on a kind that no plan holds.
func (o Object) Expected(live runtime.Object) runtime.Object {
	switch live := live.(type) {
	case *appsv1.Deployment:
		want, out := convert[appsv1.Deployment](o.Config), live.DeepCopy()
		if want.Spec.Replicas == nil {
			want.Spec.Replicas = live.Spec.Replicas
		}
		want.Spec.Template.Annotations = keptAnnotations(want.Spec.Template.Annotations, live.Spec.Template.Annotations)
		out.Spec = want.Spec
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		expectAnnotation(&out.ObjectMeta, &want.ObjectMeta, AnnotationStopped)
		expectAnnotation(&out.ObjectMeta, &want.ObjectMeta, AnnotationRotation)
		return out
	case *corev1.Service:
		want, out := convert[corev1.Service](o.Config), live.DeepCopy()
		want.Spec.ClusterIP, want.Spec.ClusterIPs = live.Spec.ClusterIP, live.Spec.ClusterIPs
		want.Spec.IPFamilies, want.Spec.IPFamilyPolicy = live.Spec.IPFamilies, live.Spec.IPFamilyPolicy
		out.Spec = want.Spec
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		return out
	case *networkingv1.NetworkPolicy:
		want, out := convert[networkingv1.NetworkPolicy](o.Config), live.DeepCopy()
		out.Spec = want.Spec
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		return out
	case *policyv1.PodDisruptionBudget:
		want, out := convert[policyv1.PodDisruptionBudget](o.Config), live.DeepCopy()
		out.Spec = want.Spec
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		return out
	case *corev1.Secret:
		want, out := convert[corev1.Secret](o.Config), live.DeepCopy()
		out.Data, out.StringData, out.Immutable = want.Data, nil, want.Immutable
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		for key := range want.Annotations {
			expectAnnotation(&out.ObjectMeta, &want.ObjectMeta, key)
		}
		return out
	case *corev1.ConfigMap:
		want, out := convert[corev1.ConfigMap](o.Config), live.DeepCopy()
		out.Data, out.BinaryData = want.Data, nil
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		return out
	case *corev1.ServiceAccount:
		want, out := convert[corev1.ServiceAccount](o.Config), live.DeepCopy()
		out.AutomountServiceAccountToken = want.AutomountServiceAccountToken
		expectMeta(&out.ObjectMeta, &want.ObjectMeta)
		return out
	}
	panic(fmt.Sprintf("no plan holds a %T", live))
}

// annotationRestartedAt is how kubectl rollout restart has pods replaced.
const annotationRestartedAt = "kubectl.kubernetes.io/restartedAt"

// keptAnnotations are those of a pod template that are planned, and those that others may set. The latter are named one by one, because
// plugins read annotations as they do the spec, and some lower the floor: a second network interface
// that no NetworkPolicy covers, AppArmor switched off, a container injected.
func keptAnnotations(want, live map[string]string) map[string]string {
	out := maps.Clone(want)
	if value, ok := live[annotationRestartedAt]; ok {
		if out == nil {
			out = map[string]string{}
		}
		out[annotationRestartedAt] = value
	}
	return out
}

// expectMeta puts the planned labels and owner into the metadata of a live object.
func expectMeta(out, want *metav1.ObjectMeta) {
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	maps.Copy(out.Labels, want.Labels)
	for _, ref := range want.OwnerReferences {
		i := slices.IndexFunc(out.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == ref.UID })
		if i < 0 {
			out.OwnerReferences = append(out.OwnerReferences, ref)
			continue
		}
		ref.BlockOwnerDeletion = out.OwnerReferences[i].BlockOwnerDeletion
		out.OwnerReferences[i] = ref
	}
}

// expectAnnotation puts an annotation of the operator's own into the metadata of a live object, or
// takes it out.
func expectAnnotation(out, want *metav1.ObjectMeta, key string) {
	value, wanted := want.Annotations[key]
	if !wanted {
		delete(out.Annotations, key)
		return
	}
	metav1.SetMetaDataAnnotation(out, key, value)
}

// Drift says where a live object is not as expected: the path of the first field that differs, or
// "" where none does.
func Drift(live, expected runtime.Object) string {
	if equality.Semantic.DeepEqual(live, expected) {
		return ""
	}
	return firstDifference("", toJSON(live), toJSON(expected))
}

func toJSON(obj runtime.Object) any {
	return *convert[any](obj)
}

// join adds a key to a path; one that is not a plain word goes into brackets.
func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, "./"):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// firstDifference walks two JSON values side by side, keys in order.
func firstDifference(path string, a, b any) string {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return path
		}
		keys := maps.Clone(a)
		maps.Copy(keys, b)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if diff := firstDifference(join(path, key), a[key], b[key]); diff != "" {
				return diff
			}
		}
		return ""
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return path
		}
		for i := range a {
			if diff := firstDifference(fmt.Sprintf("%s[%d]", path, i), a[i], b[i]); diff != "" {
				return diff
			}
		}
		return ""
	}
	if reflect.DeepEqual(a, b) {
		return ""
	}
	return path
}
