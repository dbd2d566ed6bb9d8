//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

const (
	outside     = "203.0.113.10"
	outsideDNS  = "203.0.113.53:53"
	metadata    = "169.254.169.254:80"
	clusterName = "kubernetes.default.svc.cluster.local"
)

// addresses of the cluster's own parts, found in the cluster.
type addresses struct {
	node, dns, apiServer string
}

func find(t *testing.T) addresses {
	t.Helper()
	nodes, dns, api := &corev1.NodeList{}, &corev1.Service{}, &corev1.Service{}
	if err := k8s.List(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	if err := k8s.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, dns); err != nil {
		t.Fatal(err)
	}
	if err := k8s.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "kubernetes"}, api); err != nil {
		t.Fatal(err)
	}
	return addresses{node: nodes.Items[0].Status.Addresses[0].Address, dns: dns.Spec.ClusterIP + ":53", apiServer: api.Spec.ClusterIP + ":443"}
}

// newTarget runs something that answers on TCP and UDP, with a Service on port 80 in front.
func newTarget(t *testing.T, namespace string) (pod *corev1.Pod, serviceIP string) {
	t.Helper()
	labels := map[string]string{"role": "target"}
	pod = newPod(t, namespace, "target", labels, "/toolbox", "serve", ":7000", ":7001")
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "target", Namespace: namespace},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(7000)}}},
	}
	if err := k8s.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	return pod, service.Spec.ClusterIP
}

// TestNothingIsReachableUnlessAllowed makes each attempt twice: from a pod that nothing restricts,
// where it succeeds (so the network works), and from inside a server that may reach nothing.
func TestNothingIsReachableUnlessAllowed(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	found := find(t)
	target, serviceIP := newTarget(t, ns)
	control := newPod(t, ns, "control", nil, "/toolbox", "serve", ":7000")
	server := newServer(t, ns, "closed", nil)
	waitReason(t, server, v1alpha1.ReasonServing)
	pod := podOf(t, server)

	for name, attempt := range map[string][]string{
		"cluster DNS, UDP":        {"lookup", "udp", found.dns, clusterName},
		"cluster DNS, TCP":        {"lookup", "tcp", found.dns, clusterName},
		"outside name, via DNS":   {"lookup", "udp", found.dns, "api.example.test"},
		"outside resolver, UDP":   {"lookup", "udp", outsideDNS, "api.example.test"},
		"outside resolver, TCP":   {"lookup", "tcp", outsideDNS, "api.example.test"},
		"another pod, TCP":        {"dial", "tcp", target.Status.PodIP + ":7000"},
		"another pod, UDP":        {"dial", "udp", target.Status.PodIP + ":7000"},
		"a Service":               {"dial", "tcp", serviceIP + ":80"},
		"API server by Service":   {"dial", "tcp", found.apiServer},
		"API server by node":      {"dial", "tcp", found.node + ":6443"},
		"kubelet":                 {"dial", "tcp", found.node + ":10250"},
		"metadata":                {"get", "http://" + metadata + "/"},
		"outside, HTTP":           {"get", "http://" + outside + "/"},
		"outside, TLS port":       {"dial", "tcp", outside + ":443"},
		"outside, any other port": {"dial", "tcp", outside + ":9000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			succeeds(t, control, attempt...)
			fails(t, pod, attempt...)
		})
	}
}

// TestOnlyAllowedClientsReachAServer calls a real MCP server with a real MCP client.
func TestOnlyAllowedClientsReachAServer(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "served", allowAgents)
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	stranger := newPod(t, ns, "stranger", map[string]string{"role": "stranger"}, "/toolbox", "serve", ":7000")
	elsewhere := newPod(t, newNamespace(t), "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)

	mayCall(t, agent, server)
	mayNotCall(t, stranger, server)
	mayNotCall(t, elsewhere, server)

	t.Run("on no port but its gateway's", func(t *testing.T) {
		pod := podOf(t, server)
		done := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { // a second listener inside the server's pod, until the test ends it
			defer close(done)
			_, _ = inContext(ctx, pod, "/toolbox", "serve", ":7070")
		}()
		eventually(t, func(context.Context) error {
			if said, ok := toolbox(t, pod, "dial", "tcp", "127.0.0.1:7070"); !ok {
				return fmt.Errorf("the second listener is not up: %s", said)
			}
			return nil
		})
		succeeds(t, agent, "dial", "tcp", fmt.Sprintf("%s:%d", pod.Status.PodIP, plan.GatewayPort))
		fails(t, agent, "dial", "tcp", pod.Status.PodIP+":7070")
		fails(t, agent, "dial", "tcp", fmt.Sprintf("%s:%d", pod.Status.PodIP, serverPort))
		fails(t, agent, "dial", "tcp", fmt.Sprintf("%s:%d", pod.Status.PodIP, plan.GatewayAdminPort))
		stop()
		<-done
	})
}

func allowAgents(s *v1alpha1.MCPServerSpec) {
	s.Network = &v1alpha1.Network{Ingress: []v1alpha1.PodPeer{{
		PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "agent"}}}}}
}

func endpointOf(server *v1alpha1.MCPServer) string {
	scheme := "http"
	if server.Spec.Transport.TLS != nil {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s.%s.svc:%d%s", scheme, server.Name, server.Namespace, serverPort, server.Spec.Transport.Path)
}

func mayCall(t *testing.T, from *corev1.Pod, server *v1alpha1.MCPServer) {
	t.Helper()
	said, err := in(t, from, "/mcpclient", endpointOf(server), "test_simple_text")
	if err != nil || !strings.Contains(said, "This is a simple text response for testing.") {
		t.Errorf("pod %s/%s should be able to call %s: %v: %s", from.Namespace, from.Name, server.Name, err, said)
	}
}

func mayNotCall(t *testing.T, from *corev1.Pod, server *v1alpha1.MCPServer) {
	t.Helper()
	said, err := in(t, from, "/mcpclient", "-timeout=4s", endpointOf(server), "test_simple_text")
	if err == nil || !strings.Contains(said, "initialize:") || strings.Contains(said, "tools/list") {
		t.Errorf("pod %s/%s should be refused by %s before anything is said: %v: %s", from.Namespace, from.Name, server.Name, err, said)
	}
}

// TestEgressOpensWhatIsNamedAndNoMore opens each kind of target, and looks beside it.
func TestEgressOpensWhatIsNamedAndNoMore(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	found := find(t)
	target, serviceIP := newTarget(t, ns)
	egress := func(rules ...v1alpha1.EgressRule) func(*v1alpha1.MCPServerSpec) {
		return func(s *v1alpha1.MCPServerSpec) { s.Network = &v1alpha1.Network{Egress: rules} }
	}
	cidr := newServer(t, ns, "cidr", egress(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{CIDR: outside + "/32"}, Ports: []int32{443}}))
	wide := newServer(t, ns, "wide", egress(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{CIDR: "0.0.0.0/0"}, Ports: []int32{80, 443, 6443, 7000, 10250}}))
	service := newServer(t, ns, "service", egress(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Name: "target"}}, Ports: []int32{80}}))
	pods := newServer(t, ns, "pods", egress(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Pods: &v1alpha1.PodPeer{
		PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "target"}}}}, Ports: []int32{7001}}))
	for _, server := range []*v1alpha1.MCPServer{cidr, wide, service, pods} {
		waitReason(t, server, v1alpha1.ReasonServing)
	}

	t.Run("cidr", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, cidr)
		succeeds(t, pod, "dial", "tcp", outside+":443")
		fails(t, pod, "dial", "tcp", outside+":80")
		fails(t, pod, "dial", "tcp", "203.0.113.11:443")
		fails(t, pod, "lookup", "udp", found.dns, clusterName)
	})
	t.Run("wide cidr", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, wide)
		succeeds(t, pod, "dial", "tcp", outside+":443")
		fails(t, pod, "get", "http://"+metadata+"/")
		fails(t, pod, "dial", "tcp", found.apiServer)
		fails(t, pod, "dial", "tcp", found.node+":6443")
		fails(t, pod, "dial", "tcp", found.node+":10250")
		fails(t, pod, "dial", "tcp", target.Status.PodIP+":7000")
		fails(t, pod, "lookup", "udp", outsideDNS, "api.example.test")
	})
	t.Run("service", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, service)
		succeeds(t, pod, "dial", "tcp", serviceIP+":80")
		succeeds(t, pod, "get", "http://target."+ns+".svc/") // its name too: DNS comes with it
		fails(t, pod, "dial", "tcp", target.Status.PodIP+":7001")
		fails(t, pod, "lookup", "udp", outsideDNS, "api.example.test")
		fails(t, pod, "dial", "tcp", outside+":443")
	})
	t.Run("pods", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, pods)
		succeeds(t, pod, "dial", "tcp", target.Status.PodIP+":7001")
		fails(t, pod, "dial", "tcp", target.Status.PodIP+":7000")
		fails(t, pod, "dial", "tcp", outside+":443")
	})
}

// TestIsolationOutlivesTheServer deletes a server whose process ignores the request to end: while it
// runs on, its own NetworkPolicy is gone, and it still reaches nothing.
func TestIsolationOutlivesTheServer(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "stubborn", func(s *v1alpha1.MCPServerSpec) {
		s.Command, s.Args = []string{"/toolbox", "linger", fmt.Sprintf(":%d", serverPort)}, nil
	})
	pod := startedPod(t, server, func(*corev1.Pod) bool { return true }) // it speaks no MCP, and is never ready
	if err := k8s.Delete(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		err := k8s.Get(ctx, client.ObjectKeyFromObject(server), &networkingv1.NetworkPolicy{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the server's NetworkPolicy is still there: %w", err)
		}
		return nil
	})
	fails(t, pod, "dial", "tcp", outside+":443")
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil || pod.DeletionTimestamp == nil {
		t.Fatalf("the pod should be ending by now, and still run: %v", err)
	}
	if err := k8s.Delete(t.Context(), pod, client.GracePeriodSeconds(1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		err := k8s.Get(ctx, client.ObjectKey{Namespace: ns, Name: plan.BaselineName}, &networkingv1.NetworkPolicy{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the baseline outlives the last pod: %w", err)
		}
		return nil
	})
}
