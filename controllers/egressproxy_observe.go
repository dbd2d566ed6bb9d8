package controllers

import (
	"context"
	"fmt"
	"net/netip"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// observeEgressProxy finds, for a server with host rules, the egress proxy of its namespace and its
// credential for it.
func (r *MCPServerReconciler) observeEgressProxy(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) error {
	if !plan.NeedsEgressProxy(server) {
		return nil
	}
	found := &obs.facts.EgressProxy
	if r.ComponentImage == "" {
		found.Trouble = "host rules need the egress proxy, and the operator does not know the image of it: start it with --component-image"
		return nil
	}
	of := func(kind, name string) plan.Object {
		return plan.Object{Kind: kind, Namespace: server.Namespace, Name: name}
	}
	service, err := r.cached(ctx, of("Service", plan.EgressProxyName))
	if err != nil {
		return err
	}
	if service != nil && isOfProxy(service) {
		if ip, err := netip.ParseAddr(service.(*corev1.Service).Spec.ClusterIP); err == nil {
			found.Address = ip
		}
	}
	secret, err := r.cached(ctx, of("Secret", plan.CredentialName(server.Name)))
	if err != nil {
		return err
	}
	if secret != nil && plan.IsOwnedBy(secret, server) {
		found.Credential = secret.GetAnnotations()[plan.AnnotationCredential]
	}
	deployment, err := r.cached(ctx, of("Deployment", plan.EgressProxyName))
	if err != nil {
		return err
	}
	found.Trouble = troubleOfProxy(service, secret, deployment, server)
	return nil
}

// troubleOfProxy says what keeps the egress proxy from serving a server; empty where nothing does.
func troubleOfProxy(service, secret, deployment client.Object, server *v1alpha1.MCPServer) string {
	switch {
	case service != nil && !isOfProxy(service):
		return fmt.Sprintf("Service %s/%s is in the way of the egress proxy: it does not belong to MCP Warden: delete it", service.GetNamespace(), service.GetName())
	case secret != nil && !plan.IsOwnedBy(secret, server) && !isMarked(server, secret):
		return fmt.Sprintf("Secret %s/%s is in the way of the server's credential for the egress proxy: it does not belong to MCP Warden: delete it, or give the MCPServer another name", secret.GetNamespace(), secret.GetName())
	case deployment == nil:
		return "the egress proxy of the namespace is being set up; if this lasts, the events of the MCPServer tell what is in its way"
	}
	if d := deployment.(*appsv1.Deployment); d.Status.AvailableReplicas == 0 {
		return fmt.Sprintf("no pod of the egress proxy is ready: look at Deployment %s/%s", d.Namespace, d.Name)
	}
	return ""
}
