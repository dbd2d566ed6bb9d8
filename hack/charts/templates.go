package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/internal/scope"
)

const (
	// namespace and image are as config/default names them.
	namespace = "mcp-warden-system"
	image     = "mcp-warden:dev"
	// managed stands for a namespace that a limited install manages.
	managed = "managed-namespace"

	generated = "{{- /* Written by make generate, of config/: change it there. */ -}}\n"
	keep      = "helm.sh/resource-policy"

	crdsFolder      = "charts/mcp-warden-crds/templates/"
	templatesFolder = "charts/mcp-warden/templates/"
)

// byHand are the objects whose templates have values of their own, and the one that Helm makes.
var byHand = []string{"Deployment mcp-warden", "NetworkPolicy mcp-warden", "PodDisruptionBudget mcp-warden", "Namespace " + namespace}

// templatesOf are the templates of a kustomize install, by path.
func templatesOf(manifests []byte) (map[string]string, error) {
	objects, err := parse(manifests)
	if err != nil {
		return nil, err
	}
	limited, err := limitedTemplates(manifests)
	if err != nil {
		return nil, err
	}
	files := map[string][]string{}
	for _, o := range objects {
		if slices.Contains(byHand, key(o)) {
			continue
		}
		text, err := template(o)
		if err != nil {
			return nil, err
		}
		if key(o) == "ClusterRole mcp-warden" {
			text = "{{- if .Values.namespaces }}\n" + limited + "{{- else }}\n" + text + "{{- end }}\n"
		}
		file := fileOf(o)
		files[file] = append(files[file], text)
	}
	out := map[string]string{}
	for file, texts := range files {
		out[file] = generated + strings.Join(texts, "---\n")
	}
	return out, nil
}

func fileOf(o *unstructured.Unstructured) string {
	switch kind := o.GetKind(); {
	case kind == "CustomResourceDefinition":
		return crdsFolder + o.GetName() + ".yaml"
	case o.GetLabels()["app.kubernetes.io/name"] == "mcp-warden-probe":
		return templatesFolder + "probe.yaml"
	case strings.HasPrefix(kind, "ValidatingAdmission"), o.GetName() == "mcp-warden-break-glass":
		return templatesFolder + "admission.yaml"
	case strings.HasPrefix(o.GetName(), "mcp-warden-mcp"):
		return templatesFolder + "user-roles.yaml"
	}
	return templatesFolder + "rbac.yaml"
}

func parse(manifests []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for text := range strings.SplitSeq("\n"+string(manifests), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no manifests on standard input: pipe kustomize build config/default in")
	}
	return out, nil
}

func key(o *unstructured.Unstructured) string { return o.GetKind() + " " + o.GetName() }

var (
	braces = strings.NewReplacer("{{", `{{ "{{" }}`, "}}", `{{ "}}" }}`)
	// What a value is as a whole is quoted: a namespace may look like a number.
	wholeNamespace = regexp.MustCompile(`(?m)((?:: |- )+)` + namespace + `$`)
	podSpec        = regexp.MustCompile(`(?m)^( +)serviceAccountName: mcp-warden-probe\n`)
)

// template is an object as a template of a chart: with the release's namespace, the image and the labels of its values.
func template(o *unstructured.Unstructured) (string, error) {
	o = o.DeepCopy()
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["app.kubernetes.io/name"] = nameLabel(labels)
	o.SetLabels(labels)
	if o.GetKind() == "CustomResourceDefinition" {
		annotations := o.GetAnnotations()
		annotations[keep] = "keep"
		o.SetAnnotations(annotations)
	}
	raw, err := yaml.Marshal(o.Object)
	if err != nil {
		return "", err
	}
	text := braces.Replace(string(raw))
	text = wholeNamespace.ReplaceAllString(text, "${1}{{ $$.Release.Namespace | quote }}")
	text = strings.ReplaceAll(text, namespace, "{{ $.Release.Namespace }}")
	text = strings.ReplaceAll(text, "image: "+image, `image: {{ include "mcp-warden.image" $ | quote }}`)
	text = podSpec.ReplaceAllStringFunc(text, func(line string) string {
		indent := strings.Repeat(" ", len(line)-len(strings.TrimLeft(line, " ")))
		return fmt.Sprintf("%s{{- with include \"mcp-warden.podSpec\" $ | trim }}\n%s{{- . | nindent %d }}\n%s{{- end }}\n%s", indent, indent, len(indent), indent, line)
	})
	if text, err = withLabels(text); err != nil {
		return "", fmt.Errorf("%s: %w", key(o), err)
	}
	if o.GetLabels()["app.kubernetes.io/name"] == "mcp-warden-probe" {
		text = strings.ReplaceAll(text, "imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ $.Values.image.pullPolicy }}")
	}
	return text, nil
}

func nameLabel(labels map[string]string) string {
	if name := labels["app.kubernetes.io/name"]; name != "" {
		return name
	}
	return "mcp-warden"
}

// withLabels adds the labels of a chart to the object's own, which are the last at this depth.
func withLabels(text string) (string, error) {
	const labels = "\n  labels:\n"
	at := strings.LastIndex(text, labels)
	if at < 0 || strings.Count(text, labels) != 1 {
		return "", fmt.Errorf("it has not just one set of labels")
	}
	at += len(labels)
	return text[:at] + "    {{- include \"mcp-warden.labels\" $ | nindent 4 }}\n" + text[at:], nil
}

// limitedTemplates are the rights of an install that is limited to namespaces, as package scope has them.
func limitedTemplates(manifests []byte) (string, error) {
	raw, err := scope.Limit(manifests, []string{managed})
	if err != nil {
		return "", err
	}
	objects, err := parse(raw)
	if err != nil {
		return "", err
	}
	texts := map[string]string{}
	for _, o := range objects {
		labels := o.GetLabels()
		if _, limited := labels[scope.LabelLimited]; limited {
			labels[scope.LabelLimited] = "MARK"
			o.SetLabels(labels)
		}
		text, err := template(o)
		if err != nil {
			return "", err
		}
		text = strings.ReplaceAll(text, scope.LabelLimited+": MARK", scope.LabelLimited+`: {{ include "mcp-warden.limitedMark" $ | quote }}`)
		texts[key(o)+" "+o.GetNamespace()] = text
	}
	in := func(kind, name, namespace string) string { return texts[kind+" "+name+" "+namespace] }
	each := func(kind, name, namespace string) string {
		return strings.ReplaceAll(in(kind, name, namespace), "namespace: "+namespace+"\n", "namespace: {{ $namespace | quote }}\n")
	}
	dns := strings.ReplaceAll(each("Role", "mcp-warden-services", "kube-system"), "- kube-dns\n", "- {{ $service | quote }}\n")
	return in("ClusterRole", "mcp-warden", "") +
		"{{- range $namespace := .Values.namespaces | uniq | sortAlpha }}\n" +
		"---\n" + each("Role", "mcp-warden-servers", managed) +
		"---\n" + each("RoleBinding", "mcp-warden-servers", managed) +
		"{{- end }}\n" +
		"{{- $dns := splitList \"/\" .Values.cluster.dnsService }}\n" +
		"{{- range $namespace, $service := dict \"" + scope.APIServerNamespace + "\" \"" + scope.APIServerService + "\" (first $dns) (last $dns) }}\n" +
		"{{- if not (has $namespace $.Values.namespaces) }}\n" +
		"---\n" + dns +
		"---\n" + each("RoleBinding", "mcp-warden-services", "kube-system") +
		"{{- end }}\n{{- end }}\n", nil
}
