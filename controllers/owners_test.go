package controllers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// kindOfOthers is a CustomResourceDefinition of another project, as far as it matters here.
func kindOfOthers(group, kind string) *unstructured.Unstructured {
	singular := strings.ToLower(kind)
	out := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", singular+"s."+group)
	out.Object["spec"] = map[string]any{
		"group": group, "scope": "Namespaced",
		"names": map[string]any{"kind": kind, "plural": singular + "s", "singular": singular},
		"versions": []any{map[string]any{
			"name": "v1", "served": true, "storage": true,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		}},
	}
	return out
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetAPIVersion(apiVersion)
	out.SetKind(kind)
	out.SetNamespace(namespace)
	out.SetName(name)
	return out
}

// tlsSecret holds a certificate that is valid until a time, as cert-manager would write it.
func tlsSecret(t *testing.T, namespace, name string, notAfter time.Time) *corev1.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{"cert-manager.io/certificate-name": "web"}},
		Type:       corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			corev1.TLSPrivateKeyKey: []byte("not read by anybody here"),
		},
	}
}

// sourceOf is what the status says of a key; its name is empty where that is nothing.
func sourceOf(server *v1alpha1.MCPServer, name, key string) v1alpha1.SecretSource {
	if server.Status.Secrets != nil {
		for _, s := range server.Status.Secrets.Sources {
			if s.Name == name && s.Key == key {
				return s
			}
		}
	}
	return v1alpha1.SecretSource{}
}

// waitSource waits until the status says of a key what it should.
func waitSource(t *testing.T, server *v1alpha1.MCPServer, name, key string, is func(v1alpha1.SecretSource) bool) {
	t.Helper()
	eventually(t, func() string {
		get(t, server)
		if s := sourceOf(server, name, key); !is(s) {
			return fmt.Sprintf("of %s/%s the status says %+v, owner %+v", name, key, s, s.Owner)
		}
		return ""
	})
}

// The status names who fills a Secret, whether or not their kinds are installed, and says how fresh
// that is as soon as they are, with no restart.
func TestWhoFillsASecret(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	notAfter := time.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
	db, web := secretOf(namespace, "db", map[string]string{"token": "v1"}), tlsSecret(t, namespace, "web-tls", notAfter)
	db.OwnerReferences = []metav1.OwnerReference{{APIVersion: "external-secrets.io/v1beta1", Kind: "ExternalSecret", Name: "db", UID: "0", Controller: new(true)}}
	create(t, db)
	create(t, web)
	server := withToken(namespace, "web", "db", "token")
	server.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/tls", SecretRef: v1alpha1.SecretKeys{Name: "web-tls", Keys: []v1alpha1.DataKey{"tls.crt", "tls.key"}}}}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	if s := sourceOf(server, "db", "token"); s.Owner == nil || *s.Owner != (v1alpha1.SecretOwner{APIVersion: "external-secrets.io/v1beta1", Kind: "ExternalSecret", Name: "db"}) {
		t.Errorf("the owner of db is %+v", s.Owner)
	}
	if s := sourceOf(server, "web-tls", "tls.crt"); s.NotAfter == nil || !s.NotAfter.Time.Equal(notAfter) || s.Owner == nil || s.Owner.Kind != "Certificate" {
		t.Errorf("of web-tls it is said %+v, owner %+v", s, s.Owner)
	}

	edit(t, db, func(s *corev1.Secret) { s.OwnerReferences = nil }) // the garbage collector believes what it can look up
	for _, crd := range []*unstructured.Unstructured{kindOfOthers("external-secrets.io", "ExternalSecret"), kindOfOthers("cert-manager.io", "Certificate")} {
		create(t, crd)
		removeLater(t, crd)
	}
	external := object("external-secrets.io/v1", "ExternalSecret", namespace, "db")
	certificate := object("cert-manager.io/v1", "Certificate", namespace, "web")
	setStatus := func(of *unstructured.Unstructured, ready string, times map[string]any) {
		times["conditions"] = []any{map[string]any{"type": "Ready", "status": ready, "message": "says who knows what"}}
		of.Object["status"] = times
	}
	setStatus(external, "False", map[string]any{"refreshTime": "2026-03-02T09:00:00Z"})
	setStatus(certificate, "True", map[string]any{"notAfter": notAfter.Format(time.RFC3339), "renewalTime": "2036-01-01T00:00:00Z"})
	for _, of := range []*unstructured.Unstructured{external, certificate} {
		eventually(t, func() string { // the kinds take a moment to be served
			if err := admin.Create(t.Context(), of); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	edit(t, db, func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "db", UID: external.GetUID(), Controller: new(true)}}
	})
	waitSource(t, server, "db", "token", func(s v1alpha1.SecretSource) bool {
		return s.Owner != nil && s.Owner.Ready == "False" && s.Owner.RefreshTime != nil && s.Owner.RefreshTime.UTC().Format(time.RFC3339) == "2026-03-02T09:00:00Z"
	})
	waitSource(t, server, "web-tls", "tls.key", func(s v1alpha1.SecretSource) bool {
		return s.Owner != nil && s.Owner.NotAfter != nil && s.Owner.NotAfter.Time.Equal(notAfter) && s.Owner.RenewalTime != nil && s.NotAfter == nil
	})
	c := waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonSourceUnreadable)
	if c.Status != metav1.ConditionUnknown || !strings.Contains(c.Message, "ExternalSecret db") || strings.Contains(c.Message, "who knows what") {
		t.Errorf("SecretsCurrent is %s: %s", c.Status, c.Message)
	}

	edit(t, external, func(of *unstructured.Unstructured) {
		setStatus(of, "True", map[string]any{"refreshTime": "2026-03-02T10:00:00Z"})
	})
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	edit(t, certificate, func(of *unstructured.Unstructured) {
		setStatus(of, "True", map[string]any{"notAfter": "2026-01-01T00:00:00Z"})
	})
	if c := waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonExpired); c.Status != metav1.ConditionFalse {
		t.Errorf("SecretsCurrent is %s: %s", c.Status, c.Message)
	}
	if err := admin.Delete(t.Context(), certificate); err != nil {
		t.Fatal(err)
	}
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent) // the certificate in the Secret is what counts

	began, reads := time.Now(), func() int {
		return len(o.in(namespace, func(r request) bool { return r.verb == "get" && r.resource == "externalsecrets" }))
	}
	before := reads()
	eventually(t, func() string {
		if time.Since(began) < 6*testOwnerAge {
			return "not long enough watched yet"
		}
		return ""
	})
	if n := reads() - before; n == 0 || n > 8 {
		t.Errorf("%d reads of one owner in six times the age that is allowed", n)
	}
}
