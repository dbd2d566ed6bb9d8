package observability

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

const (
	operatorNamespace = "mcp-warden-system"
	// patience is how long what should take a second or two may take.
	patience = time.Minute
	glance   = 50 * time.Millisecond
)

// cluster is a real API server, and who reaches it.
type cluster struct {
	config *rest.Config
	admin  client.Client
}

// TestOperator runs the operator's own program, with the rights of an install with metrics, against a real API server.
func TestOperator(t *testing.T) {
	c := startCluster(t)
	manager := filepath.Join(t.TempDir(), "manager")
	if out, err := exec.Command("go", "build", "-C", apiserver.Root(), "-o", manager, "./cmd/manager").CombinedOutput(); err != nil {
		t.Fatalf("build the operator: %v\n%s", err, out)
	}
	// The first to start leads.
	first := start(t, manager, c.kubeconfig(t, "mcp-warden"), "--leader-elect")
	first.await(t, "readyz", http.StatusOK)
	c.account(t, "prometheus", "mcp-warden-metrics-reader")
	token := c.token(t, "prometheus")
	eventually(t, func() error {
		families, err := first.scrape(token)
		if err == nil && valueOf(families["leader_election_master_status"], "name", "mcp-warden") != 1 {
			err = fmt.Errorf("nobody leads")
		}
		return err
	})
	second := start(t, manager, c.kubeconfig(t, "mcp-warden"), "--leader-elect")
	second.await(t, "readyz", http.StatusOK)
	eventually(t, func() error { // to make a certificate takes a moment
		_, err := second.scrape(token)
		return err
	})
	c.server(t, "agents", "one")

	t.Run("only who may gets metrics", func(t *testing.T) {
		c.account(t, "stranger", "")
		for name, tc := range map[string]struct {
			token string
			want  int
		}{
			"no token":                {"", http.StatusUnauthorized},
			"no real token":           {"strange", http.StatusUnauthorized},
			"a token with no right":   {c.token(t, "stranger"), http.StatusForbidden},
			"the operator's own":      {c.token(t, "mcp-warden"), http.StatusForbidden},
			"a token with that right": {token, http.StatusOK},
		} {
			for _, o := range []*operator{first, second} {
				resp, body, err := o.get("/metrics", tc.token)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tc.want || (tc.want != http.StatusOK && strings.Contains(body, "mcp_warden")) {
					t.Errorf("%s: status %d, want %d; %.100s", name, resp.StatusCode, tc.want, body)
				}
				if resp.TLS == nil || resp.ProtoMajor != 1 {
					t.Errorf("%s: %s, TLS: %t", name, resp.Proto, resp.TLS != nil)
				}
			}
		}
		if resp, err := http.Get("http://" + first.metrics + "/metrics"); err == nil {
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Error("plain HTTP gets metrics")
			}
		}
	})

	var families map[string]*dto.MetricFamily
	t.Run("both replicas tell of every server, and one leads", func(t *testing.T) {
		eventually(t, func() error {
			for _, o := range []*operator{first, second} {
				found, err := o.scrape(token)
				if err != nil {
					return err
				}
				if n := valueOf(found["mcp_warden_conditions_servers"], "namespace", "agents", "condition", v1alpha1.ConditionPolicyCompliant); n != 1 {
					return fmt.Errorf("%v servers have a verdict", n)
				}
				if o == first {
					families = found
				} else if leads := valueOf(found["leader_election_master_status"], "name", "mcp-warden"); leads == 1 {
					return fmt.Errorf("both lead")
				}
			}
			return nil
		})
	})
	if families == nil {
		t.FailNow()
	}
	t.Run("what is documented of others is there", func(t *testing.T) {
		for _, m := range borrowed {
			if diff := m.differs(families[m.name]); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("what is there of its own is documented", func(t *testing.T) {
		own := operatorMetrics(t)
		for name, family := range families {
			if !strings.HasPrefix(name, "mcp_warden_") {
				continue
			}
			i := slices.IndexFunc(own, func(m metric) bool { return m.name == name })
			if i < 0 {
				t.Errorf("%s is not documented", name)
			} else if diff := own[i].differs(family); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("lint", func(t *testing.T) {
		var own []*dto.MetricFamily
		for name, family := range families {
			if strings.HasPrefix(name, "mcp_warden_") {
				own = append(own, family)
			}
		}
		problems, err := promlint.NewWithMetricFamilies(own).Lint()
		if err != nil || len(own) < 4 {
			t.Errorf("%d families: %v", len(own), err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
	t.Run("logs are JSON, with the kind as key", func(t *testing.T) {
		if said := first.said(); !regexp.MustCompile(`(?m)^\{"level":"info","ts":"?[^\n]*"controllerKind":"MCPServer"`).MatchString(said) || regexp.MustCompile(`(?m)^[^{]`).MatchString(said) {
			t.Errorf("the operator said:\n%s", said)
		}
	})
	t.Run("one that cannot read is alive and not ready", func(t *testing.T) {
		c.account(t, "blind", "")
		blind := start(t, manager, c.kubeconfig(t, "blind"))
		blind.blind = true
		blind.await(t, "healthz", http.StatusOK)
		for range 5 {
			if got, err := blind.probe("readyz"); err != nil || got != http.StatusInternalServerError {
				t.Errorf("ready: status %d, %v", got, err)
			}
		}
	})
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	server, err := apiserver.Start(context.Background(), "observability", "kube-scheduler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{config: server.Config}
	if c.admin, err = client.New(server.Config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})
	for _, name := range []string{"rbac/service_account.yaml", "rbac/role.yaml", "rbac/role_binding.yaml", "metrics/roles.yaml", "metrics/service.yaml", "metrics/network_policy.yaml"} {
		c.apply(t, name)
	}
	return c
}

func (c *cluster) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.admin.Create(context.Background(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// apply creates what a file of config holds.
func (c *cluster) apply(t *testing.T, name string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(c.admin.Scheme()).UniversalDeserializer()
	for document := range strings.SplitSeq("\n"+string(raw), "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.create(t, o.(client.Object))
	}
}

// account makes one in the operator's namespace, with a ClusterRole if one is named.
func (c *cluster) account(t *testing.T, name, role string) {
	t.Helper()
	c.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}})
	if role != "" {
		c.create(t, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: operatorNamespace, Name: name}}})
	}
}

func (c *cluster) token(t *testing.T, account string) string {
	t.Helper()
	token := &authenticationv1.TokenRequest{}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: account}}
	if err := c.admin.SubResource("token").Create(t.Context(), sa, token); err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// kubeconfig is the path of one for an account.
func (c *cluster) kubeconfig(t *testing.T, account string) string {
	t.Helper()
	const name = "test"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: c.config.Host, CertificateAuthorityData: c.config.CAData, CertificateAuthority: c.config.CAFile}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: c.token(t, account)}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// server declares a server in a namespace of its own.
func (c *cluster) server(t *testing.T, namespace, name string) {
	t.Helper()
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	c.create(t, &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.MCPServerSpec{
		Image: "registry.example/server:v1", Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
	}})
}

// operator is a running process.
type operator struct {
	metrics, health string
	log             string
	// blind is one that cannot read what it is to hold.
	blind bool
}

// start runs the operator's program until the test ends.
func start(t *testing.T, manager, kubeconfig string, flags ...string) *operator {
	t.Helper()
	o := &operator{metrics: freeAddress(t), health: freeAddress(t), log: filepath.Join(t.TempDir(), "log")}
	log, err := os.Create(o.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(manager, append(flags, "--kubeconfig="+kubeconfig, "--metrics-bind-address="+o.metrics, "--health-probe-bind-address="+o.health)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if o.blind { // controller-runtime waits for its caches before it ends, and a second signal ends it (runnableGroup.Start of v0.25)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("the operator ended by itself: %v", err)
		}
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) }) // it prints what it does
		if err := cmd.Wait(); err != nil || !late.Stop() {
			t.Errorf("the operator does not end well: %v", err)
		}
		if t.Failed() {
			t.Logf("the operator said:\n%s", o.said())
		}
	})
	return o
}

func (o *operator) said() string {
	raw, err := os.ReadFile(o.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// https trusts anybody: the operator signs its certificate itself, and this is its own machine.
var https = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
}}

func (o *operator) get(path, token string) (*http.Response, string, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+o.metrics+path, nil)
	if err != nil {
		return nil, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := https.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func (o *operator) scrape(token string) (map[string]*dto.MetricFamily, error) {
	resp, body, err := o.get("/metrics", token)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s: %.200s", resp.Status, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(bytes.NewBufferString(body))
}

// probe asks as the kubelet does.
func (o *operator) probe(path string) (int, error) {
	resp, err := http.Get("http://" + o.health + "/" + path)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (o *operator) await(t *testing.T, path string, want int) {
	t.Helper()
	eventually(t, func() error {
		got, err := o.probe(path)
		if err == nil && got != want {
			err = fmt.Errorf("%s says %d", path, got)
		}
		return err
	})
}

// eventually waits until there is no error.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// valueOf is the sum of the samples of a family that have labels.
func valueOf(family *dto.MetricFamily, labels ...string) float64 {
	out := 0.0
	for _, m := range family.GetMetric() {
		has := 0
		for i := 0; i < len(labels); i += 2 {
			if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
				has += 2
			}
		}
		if has == len(labels) {
			out += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return out
}
