package compliance

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// accessControls are about who may use the server, and what its account may do.
var accessControls = []Control{
	{
		ID: "ACC-01", Title: "No Service opens the server to outside of the cluster", Severity: v1alpha1.SeverityHigh, Reads: "live pods; Services",
		Rationale:  "Few MCP servers ask who calls: one that can be reached from outside does what anybody asks, with its own credentials.",
		Remedy:     "Make the Service one of type ClusterIP without externalIPs, or narrow its selector.",
		References: []string{"OWASP MCP07:2025", "OWASP MCP09:2025", "CoSAI MCP-T1", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		live:       noServiceOpens,
	},
	{
		ID: "ACC-02", Title: "No Ingress leads to the server", Severity: v1alpha1.SeverityHigh, Reads: "Services; Ingresses",
		Rationale:  "An Ingress opens the server to whoever reaches the ingress controller, often everybody.",
		Remedy:     "Take the server's Service out of the Ingress.",
		References: []string{"OWASP MCP07:2025", "CoSAI MCP-T1", "CoSAI MCP-T8"},
		live: func(in *Input, live *Live) Outcome {
			var backends []backend
			for i := range live.Ingresses.Value {
				ingress := &live.Ingresses.Value[i]
				backends = append(backends, backend{"Ingress " + ingress.Name, servicesOfIngress(ingress)})
			}
			return noBackend(in, live, "Ingresses", live.Ingresses.Unknown, backends)
		},
	},
	{
		ID: "ACC-03", Title: "No Gateway route leads to the server", Severity: v1alpha1.SeverityHigh, Reads: "Services; routes of the Gateway API",
		Rationale:  "A route opens the server to whoever reaches the gateway, often everybody.",
		Remedy:     "Take the server's Service out of the route.",
		References: []string{"OWASP MCP07:2025", "CoSAI MCP-T1", "CoSAI MCP-T8"},
		live: func(in *Input, live *Live) Outcome {
			var backends []backend
			for _, route := range live.Routes.Value {
				backends = append(backends, backend{fmt.Sprintf("%s %s/%s", route.Kind, route.Namespace, route.Name), route.Services})
			}
			return noBackend(in, live, "routes of the Gateway API", live.Routes.Unknown, backends)
		},
	},
	{
		ID: "ACC-04", Title: "The clients are named", Severity: v1alpha1.SeverityHigh, Reads: "spec.network.ingress",
		Rationale:  "Where every pod of the cluster may call the server, so may the one that an attacker took over.",
		Remedy:     "Name the clients' namespace and labels in spec.network.ingress.",
		References: []string{"OWASP MCP07:2025", "CoSAI MCP-T2", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		declared: func(in *Input) Outcome {
			var out Outcome
			if in.Server.Spec.Network != nil {
				for i := range in.Server.Spec.Network.Ingress {
					if isEveryPod(&in.Server.Spec.Network.Ingress[i]) {
						out.blame(fmt.Sprintf("spec.network.ingress[%d]", i), "lets in every pod of the cluster: name the clients' namespace and labels")
					}
				}
			}
			return out
		},
	},
	{
		ID: "ACC-05", Title: "The server's account has no rights", Severity: v1alpha1.SeverityCritical, Reads: "RoleBindings; ClusterRoleBindings",
		Rationale:  "With rights in the cluster's API a server that was taken over takes over what those rights reach.",
		Remedy:     "Delete the binding, or take the server's account out of it.",
		References: []string{"OWASP MCP02:2025", "CoSAI MCP-T2", "CoSAI MCP-T9", "CIS Kubernetes 5.1.1", "CIS Kubernetes 5.1.3", "NSA/CISA: authentication and authorization"},
		live:       noRights,
	},
	{
		ID: "ACC-06", Title: "The pods run under an account of the server's own that holds nothing", Severity: v1alpha1.SeverityHigh, Reads: "live pods; ServiceAccount",
		Rationale:  "Under somebody else's account a server has the rights of that; what an account holds, its pods are given.",
		Remedy:     "Take secrets and imagePullSecrets off the ServiceAccount; delete pods of another account.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T1", "CIS Kubernetes 5.1.5", "CIS Kubernetes 5.1.6", "NSA/CISA: protecting Pod service account tokens"},
		live:       ownAccount,
	},
	{
		ID: "ACC-07", Title: "Requests reach the server through its gateway", Severity: v1alpha1.SeverityMedium, Reads: "live pods; Services",
		Rationale:  "What goes past the gateway is not checked, not bounded and not in its audit log.",
		Remedy:     "Start the operator with --component-image and change the spec, which gives an older server its gateway; take out Services that lead to other ports of the pods.",
		References: []string{"OWASP MCP07:2025", "OWASP MCP08:2025", "CoSAI MCP-T7", "CoSAI MCP-T12"},
		live:       gatewayInFront,
	},
}

// gatewayInFront wants a gateway in every pod, and no Service that leads past it. That it is the planned one is for other controls.
func gatewayInFront(in *Input, live *Live) Outcome {
	out := eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		if !plan.HasGateway(&pod.Spec) {
			out.fail("pod %s has no gateway: see that the operator runs with --component-image, and change the spec", pod.Name)
		}
	})
	if live.Services.Unknown != "" {
		out.unsure("the Services cannot be looked at: %s", live.Services.Unknown)
		return out
	}
	for i := range live.Services.Value {
		service := &live.Services.Value[i]
		if !isSelected(in, live, service.Spec.Selector) {
			continue
		}
		for _, port := range service.Spec.Ports {
			if leadsPast(live, &port) {
				out.fail("Service %s leads to port %s of the pods, past the gateway: take the port out, or narrow its selector", service.Name, port.TargetPort.String())
			}
		}
	}
	return out
}

// leadsPast tells whether a port of a Service leads to another port of a pod with a gateway than the gateway's.
func leadsPast(live *Live, port *corev1.ServicePort) bool {
	if port.TargetPort.Type == intstr.Int {
		return cmp.Or(port.TargetPort.IntVal, port.Port) != plan.GatewayPort
	}
	return slices.ContainsFunc(running(live), func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(containersOf(pod), func(c podContainer) bool {
			return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
				return p.Name == port.TargetPort.StrVal && p.ContainerPort != plan.GatewayPort
			})
		})
	})
}

// isSelected tells whether a selector finds the pods of the server: as they are, or as they are planned where none runs.
func isSelected(in *Input, live *Live, selector map[string]string) bool {
	if len(selector) == 0 { // a Service without a selector finds no pods
		return false
	}
	planned := plan.SelectorLabels(in.Server.Name)
	planned["app.kubernetes.io/name"] = in.Server.Name
	matches := labels.SelectorFromSet(selector)
	return matches.Matches(labels.Set(planned)) ||
		slices.ContainsFunc(running(live), func(pod *corev1.Pod) bool { return matches.Matches(labels.Set(pod.Labels)) })
}

func noServiceOpens(in *Input, live *Live) Outcome {
	var out Outcome
	switch {
	case live.Services.Unknown != "":
		out.unsure("the Services cannot be looked at: %s", live.Services.Unknown)
		return out
	case live.Pods.Unknown != "":
		out.unsure("the pods cannot be looked at: %s", live.Pods.Unknown)
		return out
	}
	for i := range live.Services.Value {
		service := &live.Services.Value[i]
		if !isSelected(in, live, service.Spec.Selector) {
			continue
		}
		switch service.Spec.Type {
		case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
			out.fail("Service %s is of type %s and leads to the server: make it ClusterIP, or narrow its selector", service.Name, service.Spec.Type)
		}
		if len(service.Spec.ExternalIPs) > 0 {
			out.fail("Service %s has externalIPs and leads to the server: take them off, or narrow its selector", service.Name)
		}
	}
	return out
}

// backend is something that sends requests to Services.
type backend struct {
	name     string
	services []string
}

// noBackend looks for what sends requests to a Service that leads to the server.
func noBackend(in *Input, live *Live, what, unknown string, backends []backend) Outcome {
	var out Outcome
	if unknown != "" {
		out.unsure("the %s cannot be looked at: %s", what, unknown)
		return out
	}
	leads := map[string]bool{in.Server.Name: true}
	for i := range live.Services.Value {
		if service := &live.Services.Value[i]; isSelected(in, live, service.Spec.Selector) {
			leads[service.Name] = true
		}
	}
	for _, b := range backends {
		for _, service := range b.services {
			switch {
			case leads[service]:
				out.fail("%s leads to the server by Service %s: take that out of it", b.name, service)
			case live.Services.Unknown != "" || live.Pods.Unknown != "":
				out.unsure("it cannot be told whether %s leads to the server by Service %s: %s", b.name, service, orElse(live.Services.Unknown, live.Pods.Unknown))
			}
		}
	}
	if live.Services.Unknown != "" {
		out.unsure("the Services cannot be looked at: %s", live.Services.Unknown)
	}
	return out
}

func servicesOfIngress(ingress *networkingv1.Ingress) []string {
	var out []string
	add := func(b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil && !slices.Contains(out, b.Service.Name) {
			out = append(out, b.Service.Name)
		}
	}
	add(ingress.Spec.DefaultBackend)
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP != nil {
			for i := range rule.HTTP.Paths {
				add(&rule.HTTP.Paths[i].Backend)
			}
		}
	}
	return out
}

func noRights(_ *Input, live *Live) Outcome {
	var out Outcome
	if live.Bindings.Unknown != "" {
		out.unsure("the bindings cannot be looked at: %s", live.Bindings.Unknown)
		return out
	}
	for _, b := range live.Bindings.Value {
		out.fail("%s %s gives %s to the server's account, through %s: delete it, or take the account out of it", b.Kind, b.Name, b.Role, b.Subject)
	}
	return out
}

func ownAccount(in *Input, live *Live) Outcome {
	out := eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		if pod.Spec.ServiceAccountName != in.Server.Name {
			out.fail("pod %s runs under the account %q, which is not the server's: %s", pod.Name, pod.Spec.ServiceAccountName, replacePod)
		}
	})
	account := live.Account.Value
	switch {
	case live.Account.Unknown != "":
		out.unsure("the account cannot be looked at: %s", live.Account.Unknown)
		return out
	case account == nil:
		out.unsure("there is no ServiceAccount %s yet", in.Server.Name)
		return out
	}
	if !isFalse(account.AutomountServiceAccountToken) {
		out.fail("ServiceAccount %s gives its token to pods (automountServiceAccountToken is not false): set it to false", account.Name)
	}
	if len(account.Secrets) > 0 || len(account.ImagePullSecrets) > 0 {
		out.fail("ServiceAccount %s holds secrets or imagePullSecrets, which its pods are given: take them off it", account.Name)
	}
	return out
}
