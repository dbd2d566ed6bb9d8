// Package plantest reads the cases of the golden tests, for every test that judges plans: those of
// package plan, and those that put the same plans before a real API server.
package plantest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// Case is one golden case.
type Case struct {
	// Name of the case: the name of its file, without an ending.
	Name string
	// Input of the plan.
	Input plan.Input
	// Output is the path of the golden file.
	Output string
}

// file is the form of a *.in.yaml file.
type file struct {
	Server  *v1alpha1.MCPServer `json:"server"`
	Secrets struct {
		Snapshot string                            `json:"snapshot"`
		Label    string                            `json:"label"`
		State    string                            `json:"state"`
		Hold     *struct{ Reason, Message string } `json:"hold"`
	} `json:"secrets"`
	Facts facts `json:"facts"`
}

// facts of a case, in either kind of file.
type facts struct {
	Nodes []struct {
		Labels                map[string]string `json:"labels"`
		Nets                  []netip.Prefix    `json:"nets"`
		UserNamespaces        bool              `json:"userNamespaces"`
		DefaultUserNamespaces bool              `json:"defaultUserNamespaces"`
		StrictGroups          bool              `json:"strictGroups"`
		ImageVolumes          bool              `json:"imageVolumes"`
	} `json:"nodes"`
	APIServer []netip.Addr `json:"apiServer"`
	Services  []struct {
		Name      string               `json:"name"`
		Namespace string               `json:"namespace"`
		Selector  map[string]string    `json:"selector"`
		Ports     []corev1.ServicePort `json:"ports"`
	} `json:"services"`
	EgressProxy struct {
		Address    netip.Addr `json:"address"`
		Credential string     `json:"credential"`
		Trouble    string     `json:"trouble"`
	} `json:"egressProxy"`
	// ComponentImage is ComponentImage where it is left out.
	ComponentImage *string `json:"componentImage"`
	Isolation      struct {
		Result  probe.Result `json:"result"`
		Message string       `json:"message"`
	} `json:"isolation"`
	Live *struct {
		Replicas int32 `json:"replicas"`
	} `json:"live"`
}

// ClusterDNS of every case.
var ClusterDNS = types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}

// ComponentImage of every case that names no other.
const ComponentImage = "registry.example/mcp-warden/mcp-warden@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

// Load reads every case.
func Load() ([]Case, error) {
	return load("", func(raw []byte, c *Case) error {
		in := &file{}
		err := yaml.UnmarshalStrict(raw, in)
		c.Input = in.input()
		return err
	})
}

// EgressCase is one golden case of an egress proxy.
type EgressCase struct {
	Case
	Input plan.EgressInput
}

// LoadEgress reads every case of an egress proxy.
func LoadEgress() ([]EgressCase, error) {
	var out []EgressCase
	_, err := load("egressproxy", func(raw []byte, c *Case) error {
		in := &struct {
			Servers     []*v1alpha1.MCPServer `json:"servers"`
			Credentials map[string]string     `json:"credentials"`
			Cilium      bool                  `json:"cilium"`
			Facts       facts                 `json:"facts"`
		}{}
		err := yaml.UnmarshalStrict(raw, in)
		out = append(out, EgressCase{Case: *c, Input: plan.EgressInput{
			Namespace: "agents", Servers: in.Servers, Credentials: in.Credentials, Cilium: in.Cilium, Facts: in.Facts.facts(),
			Image: "registry.example/mcp-warden:v1",
		}})
		return err
	})
	return out, err
}

func load(folder string, read func(raw []byte, c *Case) error) ([]Case, error) {
	_, here, _, _ := runtime.Caller(0)
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(here), "..", "testdata", folder, "*.in.yaml"))
	if err != nil {
		return nil, err
	}
	cases := make([]Case, len(paths))
	for i, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		stem := strings.TrimSuffix(path, ".in.yaml")
		cases[i] = Case{Name: filepath.Base(stem), Output: stem + ".out.yaml"}
		if err := read(raw, &cases[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return cases, nil
}

func (f *file) input() plan.Input {
	secrets := plan.Secrets{Snapshot: f.Secrets.Snapshot, Label: f.Secrets.Label, State: f.Secrets.State}
	if hold := f.Secrets.Hold; hold != nil {
		secrets.Hold = &plan.Hold{Reason: hold.Reason, Message: hold.Message}
	}
	return plan.Input{Server: f.Server, Facts: f.Facts.facts(), Secrets: secrets}
}

func (f *facts) facts() plan.Facts {
	out := plan.Facts{
		APIServer: f.APIServer, Services: map[types.NamespacedName]plan.Service{}, ClusterDNS: ClusterDNS,
		EgressProxy:       plan.EgressProxyFacts{Address: f.EgressProxy.Address, Credential: f.EgressProxy.Credential, Trouble: f.EgressProxy.Trouble},
		OperatorNamespace: "mcp-warden-system", ComponentImage: ComponentImage, Canary: []netip.Addr{netip.MustParseAddr("10.96.0.99")},
		Isolation: probe.Verdict{Result: f.Isolation.Result, Message: f.Isolation.Message},
	}
	if f.ComponentImage != nil {
		out.ComponentImage = *f.ComponentImage
	}
	for _, node := range f.Nodes {
		out.Nodes = append(out.Nodes, plan.Node{
			Labels: node.Labels, Nets: node.Nets, UserNamespaces: support(node.UserNamespaces),
			DefaultUserNamespaces: support(node.DefaultUserNamespaces), StrictGroups: support(node.StrictGroups),
			ImageVolumes: support(node.ImageVolumes),
		})
	}
	for _, service := range f.Services {
		out.Services[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}] = plan.Service{Selector: service.Selector, Ports: service.Ports}
	}
	if live := f.Live; live != nil {
		out.Live = &plan.LiveDeployment{Replicas: live.Replicas}
	}
	return out
}

func support(able bool) plan.Support {
	if able {
		return plan.Supported
	}
	return plan.Unsupported
}
