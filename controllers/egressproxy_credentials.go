package controllers

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	egressaccess "github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// credentialBytes is how many random bytes a credential has.
const credentialBytes = 32

// credentials makes those that are missing, and returns the digests of all. A conflict over the name
// of one is returned beside those of the others.
func (r *EgressProxyReconciler) credentials(ctx context.Context, servers []*v1alpha1.MCPServer) (digests map[string]string, conflict, err error) {
	digests = map[string]string{}
	known := map[string]bool{plan.AccessListName: true}
	for _, server := range servers {
		digest, err := r.credential(ctx, server)
		known[plan.CredentialName(server.Name)] = true
		switch {
		case err == nil:
			digests[server.Name] = digest
		case isProblem(err) && !problemOf(err).Waiting:
			conflict = cmp.Or(conflict, err)
		default:
			return nil, nil, fmt.Errorf("credential of %s for the egress proxy: %w", server.Name, err)
		}
	}
	maps.DeleteFunc(r.known(servers[0].Namespace), func(name, _ string) bool { return !known[name] })
	return digests, conflict, nil
}

// credential returns the digest of a server's credential. One that is missing is made; one that
// somebody changed is replaced, which replaces the pods too.
func (r *EgressProxyReconciler) credential(ctx context.Context, server *v1alpha1.MCPServer) (string, error) {
	o := plan.CredentialSecret(server, "")
	cached, err := r.cached(ctx, o)
	if err != nil {
		return "", err
	}
	if cached != nil && r.isIntact(cached, "") {
		return cached.GetAnnotations()[plan.AnnotationCredential], nil
	}
	secret := &corev1.Secret{}
	switch err := r.Live.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, secret); {
	case apierrors.IsNotFound(err):
		return r.newCredential(ctx, server)
	case err != nil:
		return "", err
	}
	if err := checkOwner(server, o, secret); err != nil {
		return "", err
	}
	if digest := credentialDigest(server, secret); digest != "" {
		r.remember(secret, "")
		return digest, nil
	}
	if err := r.deleteSecret(ctx, secret); err != nil {
		return "", err
	}
	r.Recorder.Eventf(server, nil, corev1.EventTypeNormal, "Repaired", "Apply",
		"Secret %s, the credential for the egress proxy, was changed: there is a new one, and the pods are replaced", o.Name)
	return r.newCredential(ctx, server)
}

// credentialDigest of a Secret that is as CredentialSecret made it; empty for any other.
func credentialDigest(server *v1alpha1.MCPServer, secret *corev1.Secret) string {
	token := string(secret.Data[plan.CredentialKey])
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != credentialBytes {
		return ""
	}
	if plan.Drift(secret, plan.CredentialSecret(server, token).Expected(secret)) != "" {
		return ""
	}
	return egressaccess.Digest(token)
}

func (r *EgressProxyReconciler) newCredential(ctx context.Context, server *v1alpha1.MCPServer) (string, error) {
	raw := make([]byte, credentialBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	o := plan.CredentialSecret(server, token)
	made, err := r.send(ctx, pair{planned: o})
	if apierrors.IsConflict(err) {
		return "", fmt.Errorf("%w: %w", errMeanwhile, err)
	}
	if err != nil {
		return "", err
	}
	r.remember(made, "")
	return egressaccess.Digest(token), nil
}

// errMeanwhile says that somebody else was quicker.
var errMeanwhile = errors.New("a Secret of its name was made at the same time")
