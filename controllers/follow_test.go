package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// dnsService is the cluster's DNS; a control plane without nodes has none.
func dnsService(t *testing.T) {
	t.Helper()
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"k8s-app": "kube-dns"},
		Ports:    []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP}},
	}}
	create(t, service)
	removeLater(t, service)
}

// egressPorts of a server's NetworkPolicy, those of DNS left out.
func egressPorts(t *testing.T, server *v1alpha1.MCPServer) []string {
	t.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: named(server)}
	get(t, policy)
	var out []string
	for _, rule := range policy.Spec.Egress {
		for _, port := range rule.Ports {
			if n := port.Port.IntValue(); n != 53 && n != probe.AllowedPort {
				out = append(out, port.Port.String())
			}
		}
	}
	return out
}

func TestEgressFollowsService(t *testing.T) {
	o := exclusive(t)
	dnsService(t)
	namespace := newNamespace(t)
	server := example(namespace, "web")
	server.Spec.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{{
		To: v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Name: "postgres"}}, Ports: []int32{5432},
	}}}
	create(t, server)
	c := waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonEgressTargetNotFound)
	if !strings.Contains(c.Message, "spec.network.egress[0].to.service") || !strings.Contains(c.Message, "does not exist") {
		t.Errorf("message %q", c.Message)
	}
	if ports := egressPorts(t, server); len(ports) > 0 {
		t.Errorf("open while the Service is missing: %v", ports)
	}
	if !exists(t, &appsv1.Deployment{ObjectMeta: named(server)}) {
		t.Error("a missing egress target kept the server from being deployed")
	}

	target := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "postgres"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "postgres"}, Ports: []corev1.ServicePort{{Port: 5432, TargetPort: intstr.FromInt32(15432)}},
	}}
	create(t, target)
	followed := func(want ...string) {
		t.Helper()
		eventually(t, func() string {
			if got := egressPorts(t, server); !slices.Equal(got, want) {
				return fmt.Sprintf("open ports %v, want %v", got, want)
			}
			return ""
		})
	}
	followed("15432")
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	edit(t, target, func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(25432) })
	followed("25432")
	remove(t, target)
	followed()
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonEgressTargetNotFound)
	o.calm(t, namespace)
	if events := eventsOf(t, server, v1alpha1.ReasonEgressTargetNotFound); len(events) == 0 || len(events) > 2 {
		t.Errorf("%d events EgressTargetNotFound, want one for each time: %+v", len(events), events)
	}
}

// joinNode makes a node that gives user namespaces, or does not, and that goes with the test.
func joinNode(t *testing.T, name, address string, userNamespaces bool) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	create(t, node)
	removeLater(t, node)
	editStatus(t, node, func(n *corev1.Node) {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
		n.Status.RuntimeHandlers = []corev1.NodeRuntimeHandler{{Features: &corev1.NodeRuntimeHandlerFeatures{UserNamespaces: new(userNamespaces)}}}
		n.Status.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: new(userNamespaces)}
	})
}

func hostUsers(t *testing.T, server *v1alpha1.MCPServer) bool {
	t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, deployment)
	return deployment.Spec.Template.Spec.HostUsers == nil || *deployment.Spec.Template.Spec.HostUsers
}

func TestNodesJoin(t *testing.T) {
	o := exclusive(t)
	namespace := newNamespace(t)
	before := example(namespace, "before")
	before.Spec.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{CIDR: "192.0.2.0/24"}, Ports: []int32{443}}}}
	settled(t, o, before)

	joinNode(t, "able", "192.0.2.7", true)
	eventually(t, func() string {
		policy := &networkingv1.NetworkPolicy{ObjectMeta: named(before)}
		get(t, policy)
		if except := policy.Spec.Egress[0].To[0].IPBlock.Except; !slices.Contains(except, "192.0.2.7/32") {
			return fmt.Sprintf("the node is not carved out: %v", except)
		}
		return ""
	})
	o.calm(t, namespace)
	if !hostUsers(t, before) {
		t.Error("a node that joined rolled a server that ran")
	}
	after := example(namespace, "after")
	settled(t, o, after)
	if hostUsers(t, after) {
		t.Error("every node gives user namespaces, and a new server does not use them")
	}
	deployment := &appsv1.Deployment{ObjectMeta: named(after)}
	edit(t, deployment, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.HostUsers, d.Spec.Template.Spec.SecurityContext.SupplementalGroupsPolicy = nil, nil
	})
	eventually(t, func() string { return differs(hostUsers(t, after), false) })
	bare := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}
	create(t, bare)
	removeLater(t, bare)
	o.calm(t, namespace)
	if hostUsers(t, after) {
		t.Error("a node that does not say what it supports took a feature away")
	}
	joinNode(t, "unable", "192.0.2.8", false)
	eventually(t, func() string { return differs(hostUsers(t, after), true) })
}
