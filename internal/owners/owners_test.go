package owners

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestOf(t *testing.T) {
	ref := func(apiVersion, kind, name string, controller *bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, Controller: controller, UID: "1"}
	}
	certificate := map[string]string{"cert-manager.io/certificate-name": "web"}
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		refs        []metav1.OwnerReference
		want        string
	}{
		{"nobody", nil, nil, ""},
		{"an ExternalSecret", nil, []metav1.OwnerReference{ref("external-secrets.io/v1", "ExternalSecret", "db", new(true))}, "external-secrets.io/v1 ExternalSecret db"},
		{"one of the version before", nil, []metav1.OwnerReference{ref("external-secrets.io/v1beta1", "ExternalSecret", "db", new(true))}, "external-secrets.io/v1beta1 ExternalSecret db"},
		{"a SealedSecret", nil, []metav1.OwnerReference{ref("bitnami.com/v1alpha1", "SealedSecret", "db", new(true))}, "bitnami.com/v1alpha1 SealedSecret db"},
		{"a Certificate by annotation", certificate, nil, "cert-manager.io/v1 Certificate web"},
		{"a Certificate by both", certificate, []metav1.OwnerReference{ref("cert-manager.io/v1", "Certificate", "web", new(true))}, "cert-manager.io/v1 Certificate web"},
		{"one of the core group", nil, []metav1.OwnerReference{ref("v1", "ConfigMap", "a", new(true))}, "v1 ConfigMap a"},
		{"the controller of several", nil, []metav1.OwnerReference{ref("a.io/v1", "A", "a", nil), ref("b.io/v1", "B", "b", new(true))}, "b.io/v1 B b"},
		{"the only one, no controller", nil, []metav1.OwnerReference{ref("a.io/v1", "A", "a", nil)}, "a.io/v1 A a"},
		{"several and no controller", nil, []metav1.OwnerReference{ref("a.io/v1", "A", "a", nil), ref("b.io/v1", "B", "b", nil)}, ""},
		{"an annotation that is no name", map[string]string{"cert-manager.io/certificate-name": "../secrets/x"}, nil, ""},
		{"an empty annotation", map[string]string{"cert-manager.io/certificate-name": ""}, nil, ""},
		{"a name that is none", nil, []metav1.OwnerReference{ref("a.io/v1", "A", strings.Repeat("a", 254), new(true))}, ""},
		{"a kind that is too long", nil, []metav1.OwnerReference{ref("a.io/v1", strings.Repeat("A", 64), "a", new(true))}, ""},
		{"a version that is none", nil, []metav1.OwnerReference{ref("a/b/c", "A", "a", new(true))}, ""},
		{"no version", nil, []metav1.OwnerReference{ref("", "A", "a", new(true))}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			if o := Of(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Annotations: tc.annotations, OwnerReferences: tc.refs}}); o != nil {
				got = o.APIVersion + " " + o.Kind + " " + o.Name
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func external() v1alpha1.SecretOwner {
	return v1alpha1.SecretOwner{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "db"}
}

func issued() v1alpha1.SecretOwner {
	return v1alpha1.SecretOwner{APIVersion: "cert-manager.io/v1", Kind: "Certificate", Name: "web"}
}

func TestFreshness(t *testing.T) {
	for _, tc := range []struct {
		name, object                              string
		owner                                     v1alpha1.SecretOwner
		ready, refreshTime, notAfter, renewalTime string
	}{
		{"ExternalSecret", `
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: db, namespace: agents}
spec: {refreshInterval: 1h0m0s, refreshPolicy: Periodic, secretStoreRef: {kind: ClusterSecretStore, name: vault}, target: {name: db, creationPolicy: Owner}}
status:
  binding: {name: db}
  conditions:
  - {lastTransitionTime: "2026-03-02T08:00:01Z", message: secret synced, reason: SecretSynced, status: "True", type: Ready}
  refreshTime: "2026-03-02T09:00:01Z"
  syncedResourceVersion: 1-5c833527afd7ba3f426cb0082ee7e083
`, external(), "True", "2026-03-02T09:00:01Z", "", ""},
		{"ExternalSecret of v1beta1 that fails", `
apiVersion: external-secrets.io/v1beta1
kind: ExternalSecret
metadata: {name: db}
spec: {refreshInterval: 1h, target: {name: db}}
status:
  binding: {name: ""}
  conditions:
  - {lastTransitionTime: "2026-03-02T08:00:01Z", message: "could not get secret data from provider", reason: SecretSyncedError, status: "False", type: Ready}
  - {lastTransitionTime: "2026-03-02T08:00:01Z", message: "", reason: SecretDeleted, status: "True", type: Deleted}
  refreshTime: "2026-03-02T07:00:01+01:00"
`, external(), "False", "2026-03-02T06:00:01Z", "", ""},
		{"ExternalSecret that was never refreshed", `{metadata: {name: db}, spec: {}, status: {refreshTime: null}}`, external(), "", "", "", ""},
		{"Certificate", `
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web}
spec: {secretName: web-tls, dnsNames: [web.agents.svc], issuerRef: {name: ca, kind: ClusterIssuer}}
status:
  conditions:
  - {lastTransitionTime: "2026-03-01T00:00:00Z", message: Certificate is up to date and has not expired, observedGeneration: 1, reason: Ready, status: "True", type: Ready}
  notAfter: "2026-05-30T00:00:00Z"
  notBefore: "2026-03-01T00:00:00Z"
  renewalTime: "2026-04-30T00:00:00Z"
  revision: 1
`, issued(), "True", "", "2026-05-30T00:00:00Z", "2026-04-30T00:00:00Z"},
		{"Certificate that was not issued yet", `{status: {conditions: [{type: Issuing, status: "True"}, {type: Ready, status: "False", reason: DoesNotExist}]}}`, issued(), "False", "", "", ""},
		{"nothing", `{}`, external(), "", "", "", ""},
		{"a status that is a list", `{status: [1, 2]}`, issued(), "", "", "", ""},
		{"a time that is a number, conditions that are a map", `{status: {refreshTime: 5, conditions: {Ready: "True"}}}`, external(), "", "", "", ""},
		{"conditions of other types", `{status: {conditions: [1, "Ready", {type: 7}, {type: Ready, status: true}]}}`, external(), "", "", "", ""},
		{"a status that is no status", `{status: {conditions: [{type: Ready, status: Maybe}]}}`, external(), "", "", "", ""},
		{"a time that is none", `{status: {refreshTime: yesterday, notAfter: "2026-05-30"}}`, external(), "", "", "", ""},
		{"a time of no year", `{status: {notAfter: "0000-01-01T00:00:00Z"}}`, issued(), "", "", "", ""},
		{"hostile sizes", `{status: {refreshTime: "` + strings.Repeat("9", 1<<20) + `", conditions: [` + strings.Repeat(`{type: X},`, 10000) + `{type: Ready, status: "` + strings.Repeat("T", 1<<20) + `"}]}}`, external(), "", "", "", ""},
		{"an owner that says nothing we know", `{status: {refreshTime: "2026-03-02T09:00:01Z", notAfter: "2026-05-30T00:00:00Z"}}`, v1alpha1.SecretOwner{APIVersion: "a.io/v1", Kind: "ExternalSecret", Name: "a"}, "", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object := map[string]any{}
			if err := yaml.Unmarshal([]byte(tc.object), &object); err != nil {
				t.Fatal(err)
			}
			got := Freshness(tc.owner, object)
			if got.Name != tc.owner.Name || got.Kind != tc.owner.Kind {
				t.Errorf("of %+v it makes %+v", tc.owner, got)
			}
			for what, times := range map[string][2]string{
				"ready": {got.Ready, tc.ready}, "refreshTime": {text(got.RefreshTime), tc.refreshTime},
				"notAfter": {text(got.NotAfter), tc.notAfter}, "renewalTime": {text(got.RenewalTime), tc.renewalTime},
			} {
				if times[0] != times[1] {
					t.Errorf("%s is %.40q, want %q", what, times[0], times[1])
				}
			}
		})
	}
}

func text(at *metav1.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

func TestVerdict(t *testing.T) {
	failing := external()
	failing.Ready, failing.RefreshTime = "False", new(metav1.NewTime(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)))
	v := Verdict("db-login", &failing)
	if v == nil || v.Status != metav1.ConditionUnknown || v.Reason != v1alpha1.ReasonSourceUnreadable ||
		!strings.Contains(v.Message, "ExternalSecret db, which fills Secret db-login") || !strings.Contains(v.Message, "2026-03-02T09:00:00Z") {
		t.Errorf("got %+v", v)
	}
	for _, ready := range []string{"", "True", "Unknown"} {
		fine := external()
		fine.Ready = ready
		if v := Verdict("db", &fine); v != nil {
			t.Errorf("Ready is %q, and the verdict %+v", ready, v)
		}
	}
	if v := Verdict("db", nil); v != nil {
		t.Errorf("nobody fills it, and the verdict is %+v", v)
	}
}

func TestExpires(t *testing.T) {
	early, late := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	owner := issued()
	owner.NotAfter = &late
	for name, tc := range map[string]struct {
		source v1alpha1.SecretSource
		want   time.Time
	}{
		"nobody says":                 {v1alpha1.SecretSource{}, time.Time{}},
		"the value":                   {v1alpha1.SecretSource{NotAfter: &early}, early.Time},
		"an owner without one":        {v1alpha1.SecretSource{NotAfter: &early, Owner: new(external())}, early.Time},
		"the value, before the owner": {v1alpha1.SecretSource{NotAfter: &early, Owner: &owner}, early.Time},
		"the owner":                   {v1alpha1.SecretSource{Owner: &owner}, late.Time},
	} {
		if got := Expires(&tc.source); !got.Equal(tc.want) {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// certificatePEM is a certificate that is valid until a time.
func certificatePEM(t testing.TB, notAfter time.Time) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestNotAfter(t *testing.T) {
	leaf, ca := time.Date(2026, 5, 30, 0, 0, 0, 0, time.UTC), time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)
	own, chain := certificatePEM(t, leaf), certificatePEM(t, ca)
	key := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")})
	large := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, maxCertificate+1)})
	for name, tc := range map[string]struct {
		text []byte
		want time.Time
	}{
		"a certificate":                {own, leaf},
		"the own one before its chain": {bytes.Join([][]byte{own, chain}, nil), leaf},
		"behind a comment":             {append([]byte("subject=web\n"), own...), leaf},
		"behind a key":                 {bytes.Join([][]byte{key, own}, nil), leaf},
		"nothing":                      {nil, time.Time{}},
		"a text":                       {[]byte("hunter2"), time.Time{}},
		"a key":                        {key, time.Time{}},
		"what is no certificate":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), time.Time{}},
		"one that is too large":        {large, time.Time{}},
	} {
		got, ok := NotAfter(tc.text)
		if !got.Equal(tc.want) || ok == tc.want.IsZero() {
			t.Errorf("%s: %s, %t; want %s", name, got, ok, tc.want)
		}
	}
}

func FuzzNotAfter(f *testing.F) {
	f.Add(certificatePEM(f, time.Date(2026, 5, 30, 0, 0, 0, 0, time.UTC)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if at, ok := NotAfter(text); !ok && !at.IsZero() {
			t.Errorf("no certificate, and valid until %s", at)
		}
	})
}
