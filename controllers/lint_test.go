package controllers_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/cli"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

// lintOf is what kubectl warden lint says of a server, by a policy.
func lintOf(t *testing.T, server *v1alpha1.MCPServer, policy *v1alpha1.MCPPolicy) map[v1alpha1.ControlID]v1alpha1.ControlResult {
	t.Helper()
	namespace := fmt.Sprintf("\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: %[1]s, labels: {kubernetes.io/metadata.name: %[1]s}}}\n", server.Namespace)
	declared := server.DeepCopy()
	declared.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "MCPServer"}
	manifest, err := yaml.Marshal(declared)
	if err != nil {
		t.Fatal(err)
	}
	demanded := policy.DeepCopy()
	demanded.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "MCPPolicy"}
	asked, err := yaml.Marshal(demanded)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, asked, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	cli.Run([]string{"lint", "-f", "-", "--policy", file, "-o", "json"}, cli.Streams{In: strings.NewReader(string(manifest) + namespace), Out: &out, Err: &problems})
	said := struct {
		Servers []struct {
			Policies []string `json:"policies"`
			Results  []struct {
				ID     v1alpha1.ControlID     `json:"id"`
				Result v1alpha1.ControlResult `json:"result"`
			} `json:"results"`
		} `json:"servers"`
	}{}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || len(said.Servers) != 1 || len(said.Servers[0].Policies) != 1 {
		t.Fatalf("lint says %s%s (%v)", out.String(), problems.String(), err)
	}
	results := map[v1alpha1.ControlID]v1alpha1.ControlResult{}
	for _, r := range said.Servers[0].Results {
		results[r.ID] = r.Result
	}
	return results
}

// What lint says of a manifest the controller says of the server that is made of it, of every control that both decide.
func TestLintAndControllerAgree(t *testing.T) {
	o := parallel(t)
	cases, err := plantest.Load()
	if err != nil {
		t.Fatal(err)
	}
	decided := make(chan int, len(cases))
	t.Cleanup(func() {
		close(decided)
		sum := 0
		for n := range decided {
			sum += n
		}
		if !t.Failed() && sum < 10*len(cases) {
			t.Errorf("%d results of %d cases were compared: this shows little", sum, len(cases))
		}
	})
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			server := c.Input.Server.DeepCopy()
			server.ObjectMeta = metav1.ObjectMeta{Namespace: newNamespace(t), Name: server.Name}
			server.Status = v1alpha1.MCPServerStatus{}
			policy := newPolicy(t, server.Namespace, v1alpha1.PolicyAudit, func(p *v1alpha1.MCPPolicySpec) {
				p.Images = &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{"ghcr.io/*"}, RequireDigest: true}
				p.Egress = &v1alpha1.EgressPolicy{AllowedHosts: []v1alpha1.HostPattern{"*.example.com"}, DeniedCIDRs: []v1alpha1.CIDR{"10.0.0.0/8"}, AllowedPorts: []int32{443}, RequireProof: true}
				p.Secrets = &v1alpha1.SecretPolicy{MaxAge: &metav1.Duration{Duration: time.Hour}, AllowedEnvNames: []v1alpha1.EnvNamePattern{"A*"}, Sharing: v1alpha1.SharingSelectedNamespaces}
				p.Pods = &v1alpha1.PodPolicy{MaxResources: &v1alpha1.ResourceAmounts{}, AllowedRuntimeClassNames: []v1alpha1.ObjectName{"gvisor"}, RequireUserNamespace: true}
			})
			said := lintOf(t, server, policy)
			create(t, server)
			compared := 0
			eventually(t, func() string {
				get(t, server)
				if server.Status.Compliance == nil || server.Status.ObservedGeneration != server.Generation {
					return "no verdict yet"
				}
				compared = 0
				for id, want := range said {
					got := control(server, id).Result
					if want == v1alpha1.ControlUnknown || got == v1alpha1.ControlUnknown {
						continue
					}
					compared++
					if got != want {
						return fmt.Sprintf("%s is %s by lint, and %q by the controller: %s", id, want, got, control(server, id).Message)
					}
				}
				return ""
			})
			o.calm(t, server.Namespace)
			decided <- compared
		})
	}
}
