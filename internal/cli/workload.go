package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// exemptPrefix of an annotation by which a workload that is no server's says which control it does not meet, and why.
const exemptPrefix = "lint.mcpwarden.io/exempt-"

// workloadKind is a kind of object that pods come of.
type workloadKind struct {
	apiVersion, path string
	// read decodes one, and returns the template of its pods.
	read func(raw []byte) (*metav1.ObjectMeta, *corev1.PodTemplateSpec, []error)
}

// workloadKinds are those that lint judges.
var workloadKinds = map[string]workloadKind{
	"Deployment": {"apps/v1", "spec.template", reader(func(o *appsv1.Deployment) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.Template
	})},
	"StatefulSet": {"apps/v1", "spec.template", reader(func(o *appsv1.StatefulSet) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.Template
	})},
	"DaemonSet": {"apps/v1", "spec.template", reader(func(o *appsv1.DaemonSet) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.Template
	})},
	"ReplicaSet": {"apps/v1", "spec.template", reader(func(o *appsv1.ReplicaSet) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.Template
	})},
	"Job": {"batch/v1", "spec.template", reader(func(o *batchv1.Job) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.Template
	})},
	"CronJob": {"batch/v1", "spec.jobTemplate.spec.template", reader(func(o *batchv1.CronJob) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &o.Spec.JobTemplate.Spec.Template
	})},
	"Pod": {"v1", "", reader(func(o *corev1.Pod) (*metav1.ObjectMeta, *corev1.PodTemplateSpec) {
		return &o.ObjectMeta, &corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
	})},
}

func reader[T any](parts func(*T) (*metav1.ObjectMeta, *corev1.PodTemplateSpec)) func([]byte) (*metav1.ObjectMeta, *corev1.PodTemplateSpec, []error) {
	return func(raw []byte) (*metav1.ObjectMeta, *corev1.PodTemplateSpec, []error) {
		object := new(T)
		errs := strictly(raw, object)
		meta, template := parts(object)
		return meta, template, errs
	}
}

// strictly decodes as the API server does: fields by their exact names, and none that it does not know, which would be lost.
func strictly(raw []byte, out any) []error {
	errs, err := kjson.UnmarshalStrict(raw, out)
	if err != nil {
		errs = append(errs, err)
	}
	return errs
}

// workload of the input that is to be judged.
type workload struct {
	*document
	meta       metav1.ObjectMeta
	template   *corev1.Pod
	path       string
	exemptions map[v1alpha1.ControlID]string
}

// addWorkload takes up a workload or a NetworkPolicy. One that cannot be read is no valid one: nothing of it passes.
func (m *manifests) addWorkload(d *document, namespace string) {
	raw, err := json.Marshal(d.object)
	if err != nil {
		m.refuseFor(d, "", err.Error())
		return
	}
	if d.kind() == "NetworkPolicy" && d.text("apiVersion") == networkingv1.SchemeGroupVersion.String() {
		policy := networkingv1.NetworkPolicy{}
		if errs := strictly(raw, &policy); len(errs) > 0 {
			m.refuseAll(d, errs)
			return
		}
		at := cmp.Or(policy.Namespace, namespace)
		m.networkPolicies[at] = append(m.networkPolicies[at], policy)
		return
	}
	kind, ok := workloadKinds[d.kind()]
	switch {
	case !ok:
		return
	case kind.apiVersion != d.text("apiVersion"):
		m.notes = append(m.notes, fmt.Sprintf("%s %s of %s was not judged", d.kind(), d.text("metadata", "name"), d.text("apiVersion")))
		return
	}
	meta, template, errs := kind.read(raw)
	if len(errs) > 0 {
		m.refuseAll(d, errs)
		return
	}
	if len(template.Spec.Containers) == 0 { // of nothing every control would hold
		m.refuseFor(d, strings.TrimPrefix(kind.path+".spec.containers", "."), "at least one container is required")
		return
	}
	meta.Namespace, meta.Name = cmp.Or(meta.Namespace, namespace), cmp.Or(meta.Name, meta.GenerateName)
	asAdmitted(template)
	w := workload{document: d, meta: *meta, template: &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}, path: kind.path}
	w.exemptions = m.exemptionsOf(&w)
	m.workloads = append(m.workloads, w)
}

// asAdmitted fills in what the API server would, as far as a control reads it: the kind of a volume that names none, and the AppArmor
// profile that an annotation of the older form names.
func asAdmitted(template *corev1.PodTemplateSpec) {
	spec := &template.Spec
	for i := range spec.Volumes {
		if v := &spec.Volumes[i]; v.VolumeSource == (corev1.VolumeSource{}) {
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			named := template.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
			if named != corev1.DeprecatedAppArmorBetaProfileNameUnconfined || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
				continue
			}
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		}
	}
}

// exemptionsOf a workload, by its annotations. A server's has none: policies alone excuse servers.
func (m *manifests) exemptionsOf(w *workload) map[v1alpha1.ControlID]string {
	out := map[v1alpha1.ControlID]string{}
	for _, key := range slices.Sorted(maps.Keys(w.meta.Annotations)) {
		name, ok := strings.CutPrefix(key, exemptPrefix)
		if !ok {
			continue
		}
		problem := compliance.ExemptionProblem(v1alpha1.ControlID(name), w.meta.Annotations[key])
		if w.isServers() {
			problem = "no annotation exempts a workload of an MCPServer: an MCPPolicy can"
		}
		if problem != "" {
			m.refuseFor(w.document, "metadata.annotations["+key+"]", problem)
			continue
		}
		out[v1alpha1.ControlID(name)] = w.meta.Annotations[key]
	}
	return out
}

// isServers tells the workloads of MCPServers.
func (w *workload) isServers() bool {
	_, ofServer := w.meta.Labels[plan.LabelServer]
	_, podOfServer := w.template.Labels[plan.LabelServer]
	return ofServer || podOfServer
}

func (m *manifests) refuseAll(d *document, errs []error) {
	for _, err := range errs {
		m.refuseFor(d, "", unreadable(err))
	}
}

// unreadable leaves out what the input holds: only names of fields are repeated.
func unreadable(err error) string {
	text := err.Error()
	if strings.HasPrefix(text, "unknown field ") || strings.HasPrefix(text, "duplicate field ") {
		return text
	}
	return "it cannot be read as its kind: see kubectl create --dry-run=server"
}

func (m *manifests) refuseFor(d *document, field, message string) {
	m.invalid = append(m.invalid, problem{place: d.locate(cmp.Or(field, "metadata.name")), Object: d.kind() + " " + d.text("metadata", "name"), Field: field, Message: message})
}

// judgeWorkload judges one by what the input holds.
func (m *manifests) judgeWorkload(w *workload, policies []v1alpha1.MCPPolicy) judged {
	report := compliance.EvaluateWorkload(&compliance.Workload{
		Namespace: w.meta.Namespace, Template: w.template, Path: w.path, Exemptions: w.exemptions,
		NetworkPolicies: m.networkPolicies[w.meta.Namespace], NamespaceLabels: m.namespaces[w.meta.Namespace], Policies: policies,
	})
	out := present(w.document, w.meta.Namespace, w.meta.Name, policies, &report)
	out.Kind = w.kind()
	for i := range out.Results {
		if r := &out.Results[i]; r.Result == v1alpha1.ControlExempted {
			r.Reason = w.exemptions[r.ID]
		}
	}
	m.noteNeedless(w, out.Results)
	return out
}

// noteNeedless tells of exemptions from what the workload meets: they would hide what comes later.
func (m *manifests) noteNeedless(w *workload, results []controlResult) {
	for _, id := range slices.Sorted(maps.Keys(w.exemptions)) {
		at := slices.IndexFunc(results, func(r controlResult) bool { return r.ID == id })
		if at < 0 || results[at].Result == v1alpha1.ControlPass {
			m.notes = append(m.notes, fmt.Sprintf("%s %s/%s declares an exemption from %s and needs none: take the annotation off", w.kind(), w.meta.Namespace, w.meta.Name, id))
		}
	}
}
