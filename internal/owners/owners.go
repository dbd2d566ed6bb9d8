// Package owners tells who fills a Secret, and how fresh that is. It is pure. It knows External Secrets
// Operator's and cert-manager's objects by their shape alone, so that neither need be there.
package owners

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// Kinds whose objects say how fresh a Secret is.
var (
	externalSecret = schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}
	certificate    = schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}
)

// annotationCertificate names the Certificate that a Secret is of: cert-manager sets an owner reference
// only where it was told to.
const annotationCertificate = "cert-manager.io/certificate-name"

// Of tells who fills a Secret: the Certificate that its annotation names, or the object that controls it,
// or the only one that owns it. It is nil where nobody does, or where what is written there is no
// reference to an object.
func Of(secret metav1.Object) *v1alpha1.SecretOwner {
	if name := secret.GetAnnotations()[annotationCertificate]; isName(name) {
		return &v1alpha1.SecretOwner{APIVersion: certificate.Group + "/v1", Kind: certificate.Kind, Name: name}
	}
	ref := metav1.GetControllerOfNoCopy(secret)
	if refs := secret.GetOwnerReferences(); ref == nil && len(refs) == 1 {
		ref = &refs[0]
	}
	if ref == nil || !isName(ref.Name) || ref.Kind == "" || len(ref.Kind) > validation.DNS1035LabelMaxLength {
		return nil
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Version == "" || len(ref.APIVersion) > 2*validation.DNS1123SubdomainMaxLength {
		return nil
	}
	return &v1alpha1.SecretOwner{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name}
}

func isName(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }

// Kind returns the kind of an owner whose object says how fresh the Secret is; false for all others.
func Kind(owner *v1alpha1.SecretOwner) (schema.GroupKind, bool) {
	if owner == nil {
		return schema.GroupKind{}, false
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	return kind, kind == externalSecret || kind == certificate
}

// Freshness returns the owner with what its object says: when the value was last fetched, how long it is
// valid, and whether its Ready condition holds. What is missing or is of another type than is usual
// is left out.
func Freshness(owner v1alpha1.SecretOwner, object map[string]any) v1alpha1.SecretOwner {
	switch kind, _ := Kind(&owner); kind {
	case externalSecret:
		owner.RefreshTime = timeAt(object, "status", "refreshTime")
	case certificate:
		owner.NotAfter = timeAt(object, "status", "notAfter")
		owner.RenewalTime = timeAt(object, "status", "renewalTime")
	}
	owner.Ready = ready(object)
	return owner
}

func timeAt(object map[string]any, path ...string) *metav1.Time {
	text, ok, err := unstructured.NestedString(object, path...)
	if !ok || err != nil {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return new(metav1.NewTime(at.UTC().Truncate(time.Second)))
}

// ready is the status of the condition Ready; empty where there is none.
func ready(object map[string]any) string {
	conditions, _, err := unstructured.NestedFieldNoCopy(object, "status", "conditions")
	list, ok := conditions.([]any)
	if err != nil || !ok {
		return ""
	}
	for _, entry := range list {
		condition, ok := entry.(map[string]any)
		if !ok || condition["type"] != "Ready" {
			continue
		}
		switch status, _ := condition["status"].(string); metav1.ConditionStatus(status) {
		case metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown:
			return status
		}
	}
	return ""
}

// Verdict on a Secret by its owner: nil where there is nothing to complain of. An owner that is not
// ready does not bring the values that it should; whether those of the Secret are the newest is then
// unknown. Its message is not repeated: it is somebody else's, and may hold anything.
func Verdict(secret string, owner *v1alpha1.SecretOwner) *rotation.Verdict {
	if owner == nil || owner.Ready != string(metav1.ConditionFalse) {
		return nil
	}
	since := ""
	if owner.RefreshTime != nil {
		since = "; it last did at " + owner.RefreshTime.UTC().Format(time.RFC3339)
	}
	return &rotation.Verdict{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonSourceUnreadable, Message: fmt.Sprintf(
		"%s %s, which fills Secret %s, is not ready and may not bring new values%s: see its conditions.", owner.Kind, owner.Name, secret, since)}
}

// Expires says when a source's value ends to be valid: when the certificate in it does, else when its
// owner says so; zero where neither is known.
func Expires(source *v1alpha1.SecretSource) time.Time {
	switch {
	case source.NotAfter != nil:
		return source.NotAfter.Time
	case source.Owner != nil && source.Owner.NotAfter != nil:
		return source.Owner.NotAfter.Time
	}
	return time.Time{}
}

// maxCertificate is how large a certificate may be, in bytes.
const maxCertificate = 64 << 10

// NotAfter says until when a certificate is valid: the first of a PEM text, which is the server's or
// client's own where its chain follows. It is false where there is none.
func NotAfter(text []byte) (time.Time, bool) {
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return time.Time{}, false
		}
		if block.Type != "CERTIFICATE" {
			text = rest
			continue
		}
		if len(block.Bytes) > maxCertificate {
			return time.Time{}, false
		}
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, false
		}
		return parsed.NotAfter, true
	}
	return time.Time{}, false
}
