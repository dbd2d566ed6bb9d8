package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// problem is what makes an object no valid one.
type problem struct {
	place
	Object  string `json:"object"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// finding is a violation, with where it stands.
type finding struct {
	place
	Field   string `json:"field,omitempty"`
	Policy  string `json:"policy,omitempty"`
	Message string `json:"message"`
}

// controlResult is what was found of one control.
type controlResult struct {
	ID       v1alpha1.ControlID       `json:"id"`
	Title    string                   `json:"title"`
	Severity v1alpha1.ControlSeverity `json:"severity"`
	Result   v1alpha1.ControlResult   `json:"result"`
	// Counts says whether the result turns the condition PolicyCompliant, and the exit code.
	Counts   bool      `json:"counts"`
	Message  string    `json:"message,omitempty"`
	Findings []finding `json:"findings,omitempty"`
	// Reason that a workload gives for its exemption.
	Reason string `json:"exemptionReason,omitempty"`
}

// judged is one server, or one workload.
type judged struct {
	place
	// Kind of a workload; empty for a server.
	Kind      string          `json:"kind,omitempty"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Policies  []string        `json:"policies,omitempty"`
	Results   []controlResult `json:"results"`
}

// lintVerdict is over the whole input.
type lintVerdict struct {
	Servers []judged `json:"servers"`
	// Workloads that are no servers, where they are asked for.
	Workloads []judged  `json:"workloads,omitempty"`
	Invalid   []problem `json:"invalid,omitempty"`
	// Notes are what was assumed.
	Notes []string `json:"notes,omitempty"`
}

// fails tells whether anything is wrong that counts.
func (v *lintVerdict) fails() bool {
	for _, j := range v.all() {
		for _, r := range j.Results {
			if r.Result == v1alpha1.ControlFail && r.Counts {
				return true
			}
		}
	}
	return len(v.Invalid) > 0
}

// all that was judged.
func (v *lintVerdict) all() []judged { return slices.Concat(v.Servers, v.Workloads) }

// manifests are the objects of the input that matter, each with its document.
type manifests struct {
	servers    []parsed[v1alpha1.MCPServer]
	policies   []v1alpha1.MCPPolicy
	namespaces map[string]map[string]string
	services   map[types.NamespacedName]plan.Service
	invalid    []problem
	// workloads that are no servers, where they are judged, too.
	workloads       []workload
	networkPolicies map[string][]networkingv1.NetworkPolicy
	notes           []string
}

type parsed[T any] struct {
	*document
	value *T
}

// sortOut finds the objects that matter, and checks those of our kinds as the API server would.
func sortOut(ctx context.Context, docs []document, namespace string, withWorkloads bool) (*manifests, error) {
	validators, err := loadValidators()
	if err != nil {
		return nil, err
	}
	out := &manifests{networkPolicies: map[string][]networkingv1.NetworkPolicy{}, namespaces: map[string]map[string]string{}, services: map[types.NamespacedName]plan.Service{clusterDNS: dnsService}}
	for i := range docs {
		d := &docs[i]
		switch {
		case d.is("MCPServer"), d.is("MCPPolicy"):
			if errs := validators[d.kind()].check(ctx, d.object); len(errs) > 0 {
				out.refuse(d, errs)
				continue
			}
			if err := out.addOurs(d, namespace); err != nil {
				return nil, err
			}
		case d.isCore("Namespace"), d.isCore("Service"):
			out.addCore(d, namespace)
		case withWorkloads:
			out.addWorkload(d, namespace)
		}
	}
	return out, nil
}

func (m *manifests) refuse(d *document, errs field.ErrorList) {
	for _, err := range errs {
		m.invalid = append(m.invalid, problem{place: d.locate(err.Field), Object: d.kind() + " " + d.text("metadata", "name"), Field: err.Field, Message: messageOf(err)})
	}
}

// messageOf leaves out the value that is wrong: one may be a credential in the wrong place.
func messageOf(err *field.Error) string {
	switch {
	case err.Detail == "":
		return err.Type.String()
	case err.Type == field.ErrorTypeInvalid:
		return strings.TrimPrefix(err.Detail, err.Field+" in body ")
	}
	return err.Type.String() + ": " + strings.TrimPrefix(err.Detail, err.Field+" in body ")
}

func (m *manifests) addOurs(d *document, namespace string) error {
	if d.kind() == "MCPPolicy" {
		policy := v1alpha1.MCPPolicy{}
		if err := d.into(&policy); err != nil {
			return fmt.Errorf("%s:%d: %w", d.file, d.node.Line, err)
		}
		m.policies = append(m.policies, policy)
		return nil
	}
	server := &v1alpha1.MCPServer{}
	if err := d.into(server); err != nil {
		return fmt.Errorf("%s:%d: %w", d.file, d.node.Line, err)
	}
	if server.Namespace == "" {
		server.Namespace = namespace
	}
	server.Status = v1alpha1.MCPServerStatus{} // what a cluster once said
	m.servers = append(m.servers, parsed[v1alpha1.MCPServer]{d, server})
	return nil
}

// addCore takes up a Namespace or a Service. One that is not valid says nothing.
func (m *manifests) addCore(d *document, namespace string) {
	if d.kind() == "Namespace" {
		object := &corev1.Namespace{}
		if d.into(object) == nil {
			labels := map[string]string{corev1.LabelMetadataName: object.Name}
			for key, value := range object.Labels {
				labels[key] = value
			}
			m.namespaces[object.Name] = labels
		}
		return
	}
	object := &corev1.Service{}
	if d.into(object) == nil {
		if object.Namespace == "" {
			object.Namespace = namespace
		}
		m.services[types.NamespacedName{Namespace: object.Namespace, Name: object.Name}] = plan.Service{Selector: object.Spec.Selector, Ports: object.Spec.Ports}
	}
}

var (
	clusterDNS = types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}
	dnsService = plan.Service{Selector: map[string]string{"k8s-app": "kube-dns"}, Ports: []corev1.ServicePort{
		{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
		{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)},
	}}
)

// assumptions are what a cluster would tell, in place of which planFor puts something.
var assumptions = []string{
	"the cluster's DNS is Service kube-system/kube-dns, with pods labelled k8s-app=kube-dns",
	"the nodes support user namespaces and supplementalGroupsPolicy",
	"addresses of nodes, pods and the API server are not known, and so not carved out of cidr rules",
	"the egress proxy answers at 192.0.2.1, and the operator's image is mcp-warden:unknown",
	"the isolation of the nodes is proven",
}

// planFor plans a server as if the cluster had all that it needs.
func (m *manifests) planFor(server *v1alpha1.MCPServer) (*plan.Plan, field.ErrorList) {
	able := plan.Node{Name: "any", Ready: true, UserNamespaces: plan.Supported, DefaultUserNamespaces: plan.Supported, StrictGroups: plan.Supported}
	if server.Spec.Scheduling != nil { // a node that the server may run on
		able.Labels = map[string]string{}
		for key, value := range server.Spec.Scheduling.NodeSelector {
			able.Labels[key] = string(value)
		}
	}
	return plan.Build(plan.Input{Server: server, Facts: plan.Facts{
		Nodes: []plan.Node{able}, Services: m.services, ClusterDNS: clusterDNS,
		EgressProxy:       plan.EgressProxyFacts{Address: netip.MustParseAddr("192.0.2.1"), Credential: "unknown"},
		OperatorNamespace: "mcp-warden-system", ComponentImage: "mcp-warden:unknown",
		Isolation: probe.Verdict{Result: probe.Proven},
	}})
}

// judge judges every server of the input, and its workloads where they are asked for.
func (m *manifests) judge(now time.Time) lintVerdict {
	out := lintVerdict{Servers: []judged{}}
	assumed := map[string]bool{}
	for _, server := range m.servers {
		planned, errs := m.planFor(server.value)
		if len(errs) > 0 {
			m.refuse(server.document, errs)
			continue
		}
		policies, note := m.policiesFor(server.value.Namespace)
		if note != "" && !assumed[note] {
			assumed[note] = true
			out.Notes = append(out.Notes, note)
		}
		report := compliance.Evaluate(compliance.Input{
			Now: now, Server: server.value, Plan: planned, Literals: credentials.Find(&server.value.Spec), Policies: policies,
		})
		out.Servers = append(out.Servers, present(server.document, server.value.Namespace, server.value.Name, policies, &report))
	}
	for i := range m.workloads {
		w := &m.workloads[i]
		policies, note := m.policiesFor(w.meta.Namespace)
		if note != "" && !assumed[note] {
			assumed[note] = true
			out.Notes = append(out.Notes, note)
		}
		out.Workloads = append(out.Workloads, m.judgeWorkload(w, policies))
	}
	out.Notes = append(out.Notes, m.notes...)
	out.Invalid = m.problems()
	return out
}

// problems are what makes objects of the input no valid ones, in the order of the input.
func (m *manifests) problems() []problem {
	order := map[string]int{}
	for _, p := range m.invalid {
		if _, known := order[p.File]; !known {
			order[p.File] = len(order)
		}
	}
	slices.SortStableFunc(m.invalid, func(a, b problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return m.invalid
}

// policiesFor are the policies that select a namespace. Where its labels are not known every policy is taken to.
func (m *manifests) policiesFor(namespace string) (policies []v1alpha1.MCPPolicy, note string) {
	if labels, known := m.namespaces[namespace]; known {
		selecting, err := compliance.Selecting(m.policies, labels)
		if err == nil {
			return selecting, ""
		}
		return m.policies, fmt.Sprintf("every policy is taken to select namespace %s: %v", namespace, err)
	}
	if len(m.policies) == 0 {
		return nil, ""
	}
	return m.policies, fmt.Sprintf("every policy is taken to select namespace %s, whose labels are not known: give its Namespace object, too", namespace)
}

func present(d *document, namespace, name string, policies []v1alpha1.MCPPolicy, report *compliance.Report) judged {
	out := judged{place: d.locate("metadata.name"), Namespace: namespace, Name: name, Results: []controlResult{}}
	for i := range policies {
		out.Policies = append(out.Policies, policies[i].Name)
	}
	for i := range report.Results {
		r := &report.Results[i]
		result := controlResult{ID: r.Control.ID, Title: r.Control.Title, Severity: r.Control.Severity, Result: r.Result, Counts: r.Counts(), Message: r.Message}
		for _, v := range r.Violations {
			result.Findings = append(result.Findings, finding{place: d.locate(v.Field), Field: v.Field, Policy: v.Policy, Message: v.Message})
		}
		out.Results = append(out.Results, result)
	}
	return out
}
