package plan

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func stdioServer(change func(*v1alpha1.MCPServer)) *v1alpha1.MCPServer {
	server := &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Name: "files", Namespace: "agents", Generation: 2},
		Spec: v1alpha1.MCPServerSpec{
			Image: "registry.example/files:v1", Command: []string{"/server"}, Transport: v1alpha1.Transport{Type: v1alpha1.TransportStdio},
		},
	}
	if change != nil {
		change(server)
	}
	return server
}

// An upgrade of the operator rolls no server: its gateway stays until the spec changes.
func TestGatewayImage(t *testing.T) {
	known := func(image string, generation int64, kind v1alpha1.TransportType) *v1alpha1.MCPServer {
		return stdioServer(func(s *v1alpha1.MCPServer) {
			s.Spec.Transport.Type, s.Status.ObservedGeneration, s.Status.GatewayImage = kind, generation, image
		})
	}
	live := &LiveDeployment{}
	for _, tc := range []struct {
		name   string
		server *v1alpha1.MCPServer
		live   *LiveDeployment
		want   string
	}{
		{"new", known("", 0, v1alpha1.TransportStreamableHTTP), nil, "new"},
		{"an upgrade", known("old", 2, v1alpha1.TransportStreamableHTTP), live, "old"},
		{"an upgrade, on stdio", known("old", 2, v1alpha1.TransportStdio), live, "old"},
		{"an upgrade from before there was a gateway", known("", 2, v1alpha1.TransportStreamableHTTP), live, ""},
		{"a change of the spec after an upgrade", known("old", 1, v1alpha1.TransportStreamableHTTP), live, "new"},
		{"the Deployment is gone", known("old", 2, v1alpha1.TransportStreamableHTTP), nil, "new"},
		{"stdio cannot do without", known("", 2, v1alpha1.TransportStdio), live, "new"},
	} {
		if got := gatewayImage(tc.server, Facts{ComponentImage: "new", Live: tc.live}); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// What keeps a server on stdio from being served is told with its field.
func TestStdioRefused(t *testing.T) {
	for _, tc := range []struct {
		name, image, want string
		change            func(*v1alpha1.MCPServer)
	}{
		{"as it should be", "image", "", nil},
		{"an operator without an image", "", "spec.transport.type", nil},
		{"a secret file over the gateway", "image", "spec.secretFiles[0].mountPath", func(s *v1alpha1.MCPServer) {
			s.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/mcp-warden"}}
		}},
		{"data beside the gateway", "image", "spec.filesystem.data[0].mountPath", func(s *v1alpha1.MCPServer) {
			s.Spec.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{{MountPath: "/mcp-warden/data", ConfigMapName: "a"}}}
		}},
		{"a writable gateway", "image", "spec.filesystem.writablePaths[0].path", func(s *v1alpha1.MCPServer) {
			s.Spec.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/mcp-warden"}}}
		}},
		{"a secret file over the certificate", "image", "spec.secretFiles[0].mountPath", func(s *v1alpha1.MCPServer) {
			s.Spec.Transport.TLS = &v1alpha1.TransportTLS{SecretName: "tls"}
			s.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/mcp-warden-tls/more"}}
		}},
		{"a folder of that name without a certificate", "image", "", func(s *v1alpha1.MCPServer) {
			s.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/mcp-warden-tls"}}
		}},
		{"TLS with an operator without an image", "", "spec.transport.tls.secretName", func(s *v1alpha1.MCPServer) {
			s.Spec.Transport = v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080)), TLS: &v1alpha1.TransportTLS{SecretName: "tls"}}
		}},
	} {
		_, errs := Build(Input{Server: stdioServer(tc.change), Facts: Facts{ComponentImage: tc.image}})
		switch {
		case tc.want == "" && len(errs) > 0:
			t.Errorf("%s: %v", tc.name, errs)
		case tc.want != "" && (len(errs) != 1 || errs[0].Field != tc.want):
			t.Errorf("%s: %v, want one for %s", tc.name, errs, tc.want)
		}
	}
}

// A feature that was given stays, and an image volume never meets a user namespace.
func TestImageVolumeFeature(t *testing.T) {
	node := func(userNamespaces, imageVolumes Support) []Node {
		return []Node{{DefaultUserNamespaces: userNamespaces, UserNamespaces: userNamespaces, ImageVolumes: imageVolumes}}
	}
	given := func(features ...v1alpha1.PodFeature) *v1alpha1.MCPServer {
		return stdioServer(func(s *v1alpha1.MCPServer) { s.Status.ObservedGeneration, s.Status.PodFeatures = 2, features })
	}
	http := stdioServer(func(s *v1alpha1.MCPServer) { s.Spec.Transport.Type = v1alpha1.TransportStreamableHTTP })
	live := &LiveDeployment{}
	for _, tc := range []struct {
		name   string
		server *v1alpha1.MCPServer
		nodes  []Node
		live   *LiveDeployment
		want   bool
	}{
		{"supported", stdioServer(nil), node(Unsupported, Supported), nil, true},
		{"a server on HTTP has no use for it", http, node(Unsupported, Supported), nil, false},
		{"a node does not say", stdioServer(nil), node(Unsupported, SupportUnknown), nil, false},
		{"a user namespace comes first", stdioServer(nil), node(Supported, Supported), nil, false},
		{"kept", given(v1alpha1.PodFeatureImageVolume), node(Unsupported, SupportUnknown), live, true},
		{"kept where user namespaces have come", given(v1alpha1.PodFeatureImageVolume), node(Supported, Supported), live, true},
		{"dropped where a node cannot", given(v1alpha1.PodFeatureImageVolume), node(Unsupported, Unsupported), live, false},
		{"not taken up before the spec changes", given(), node(Unsupported, Supported), live, false},
	} {
		got := slices.Contains(features(tc.server, Facts{Nodes: tc.nodes, Live: tc.live}), v1alpha1.PodFeatureImageVolume)
		if got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// A pod outlives its gateway, which must have the time to end all that it runs.
func TestGatewayEndsInTime(t *testing.T) {
	if most := int64(farewellSeconds + drainSeconds + 2*stopGraceSeconds); most >= gracePeriodSeconds {
		t.Errorf("a gateway may take %d s, a pod %d s", most, gracePeriodSeconds)
	}
}

// However little memory a server has, its gateway can hold a message and run a few processes; and no more than it should
// however much.
func TestStdioBounds(t *testing.T) {
	for memory, want := range map[string][]string{
		"32Mi":  {"-max-buffered-bytes=8388608", "-max-processes=4"},
		"512Mi": {"-max-buffered-bytes=67108864", "-max-processes=8"},
		"64Gi":  {"-max-buffered-bytes=67108864", "-max-processes=64"},
	} {
		quantity := resource.MustParse(memory)
		p, errs := Build(Input{Facts: Facts{ComponentImage: "image"}, Server: stdioServer(func(s *v1alpha1.MCPServer) {
			s.Spec.Resources = &v1alpha1.ResourceRequirements{Limits: &v1alpha1.ResourceAmounts{Memory: &quantity}}
		})})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		args := serverOf(t, p).Args
		for _, arg := range want {
			if !slices.Contains(args, arg) {
				t.Errorf("%s of memory: no %s in %s", memory, arg, strings.Join(args, " "))
			}
		}
	}
}

func serverOf(t *testing.T, p *Plan) *corev1.Container {
	t.Helper()
	for _, o := range p.Objects {
		if o.Kind == "Deployment" {
			spec := convert[struct {
				Spec struct{ Template corev1.PodTemplateSpec }
			}](o.Config)
			return &spec.Spec.Template.Spec.Containers[0]
		}
	}
	t.Fatal("no Deployment")
	return nil
}
