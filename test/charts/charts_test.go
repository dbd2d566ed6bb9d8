// Package charts compares what the Helm charts give, with Helm 3 and with Helm 4, with the kustomize install, and sees that
// values that are wrong are refused. What installs, upgrades and uninstalls on a real node is in test/e2e.
package charts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/internal/scope"
)

const (
	root       = "../.."
	namespace  = "mcp-warden-system"
	repository = "registry.example/mcp-warden"
	digest     = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	image      = repository + "@" + digest
)

// helms are the versions of Helm that the charts work with.
var helms = []string{"helm3", "helm4"}

// installed is what kustomize makes of config/default.
var installed []byte

func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "charts:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	build := exec.Command("hack/helm.sh")
	build.Dir, build.Stdout, build.Stderr = root, os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build Helm: %w", err)
	}
	var err error
	installed, err = kustomize("config/default")
	return err
}

func kustomize(folder string) ([]byte, error) {
	cmd := exec.Command("go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", folder)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	return cmd.Output()
}

// helm runs a command of a version of Helm, which reaches no cluster.
func helm(t *testing.T, version string, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "bin", version, "helm"), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// template renders a chart with values.
func template(t *testing.T, version, chart, namespace string, values ...string) string {
	t.Helper()
	args := []string{"template", "mcp-warden", filepath.Join(root, "charts", chart), "--namespace", namespace}
	for _, value := range values {
		args = append(args, "--set-json", value)
	}
	out, said, err := helm(t, version, args...)
	if err != nil {
		t.Fatalf("%s template %s %v: %v: %s", version, chart, values, err, said)
	}
	return out
}

func each(t *testing.T, f func(t *testing.T, version string)) {
	t.Helper()
	for _, version := range helms {
		t.Run(version, func(t *testing.T) { t.Parallel(); f(t, version) })
	}
}

// objects of manifests, by kind, namespace and name.
func objects(t *testing.T, manifests string) map[string]*unstructured.Unstructured {
	t.Helper()
	out := map[string]*unstructured.Unstructured{}
	for text := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(text), &o.Object); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(o.Object) == 0 {
			continue
		}
		key := fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
		if out[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		out[key] = o
	}
	return out
}

// chartLabels are what a chart adds to every object.
var chartLabels = []string{"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version"}

// likeKustomize takes from the objects of a chart what it has and the kustomize install has not, and demands it.
func likeKustomize(t *testing.T, all map[string]*unstructured.Unstructured) {
	t.Helper()
	for key, o := range all {
		labels := o.GetLabels()
		for _, label := range chartLabels {
			if labels[label] == "" {
				t.Errorf("%s has no label %s", key, label)
			}
			delete(labels, label)
		}
		o.SetLabels(labels)
	}
	args := managerArgs(t, all)
	if !slices.Contains(args, "--operator-namespace="+namespace) {
		t.Errorf("the operator is not told its namespace: %v", args)
	}
	setManagerArgs(t, all, slices.DeleteFunc(args, func(arg string) bool { return arg == "--operator-namespace="+namespace }))
}

func manager(t *testing.T, all map[string]*unstructured.Unstructured, namespace string) map[string]any {
	t.Helper()
	deployment := all["Deployment "+namespace+"/mcp-warden"]
	if deployment == nil {
		t.Fatal("there is no Deployment of the operator")
	}
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) != 1 {
		t.Fatalf("the operator has %d containers: %v", len(containers), err)
	}
	return containers[0].(map[string]any)
}

func managerArgs(t *testing.T, all map[string]*unstructured.Unstructured) []string {
	t.Helper()
	args, _, err := unstructured.NestedStringSlice(manager(t, all, namespace), "args")
	if err != nil {
		t.Fatal(err)
	}
	return args
}

func setManagerArgs(t *testing.T, all map[string]*unstructured.Unstructured, args []string) {
	t.Helper()
	container := manager(t, all, namespace)
	if err := unstructured.SetNestedStringSlice(container, args, "args"); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedSlice(all["Deployment "+namespace+"/mcp-warden"].Object, []any{container}, "spec", "template", "spec", "containers"); err != nil {
		t.Fatal(err)
	}
}

// kustomized are the objects that a chart must give, those of the other chart and what Helm makes aside.
func kustomized(t *testing.T, manifests []byte) map[string]*unstructured.Unstructured {
	t.Helper()
	out := objects(t, strings.ReplaceAll(string(manifests), "mcp-warden:dev", image))
	for key, o := range out {
		if o.GetKind() == "Namespace" || o.GetKind() == "CustomResourceDefinition" {
			delete(out, key)
			continue
		}
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		if labels["app.kubernetes.io/name"] == "" { // controller-gen gives none
			labels["app.kubernetes.io/name"] = "mcp-warden"
		}
		o.SetLabels(labels)
	}
	return out
}

var asImage = []string{`image.repository="` + repository + `"`, `image.digest="` + digest + `"`}

func TestChartGivesWhatKustomizeGives(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		got := objects(t, template(t, version, "mcp-warden", namespace, asImage...))
		likeKustomize(t, got)
		if diff := cmp.Diff(kustomized(t, installed), got); diff != "" {
			t.Errorf("the chart differs from config/default (-kustomize +Helm):\n%s", diff)
		}
	})
}

func TestChartGivesTheMetricsOfKustomize(t *testing.T) {
	overlay, err := os.MkdirTemp(filepath.Join(root, "config"), "test-") // kustomize refuses absolute paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(overlay) })
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte("resources: [../default]\ncomponents: [../metrics]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	manifests, err := kustomize(filepath.Join("config", filepath.Base(overlay)))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("versions", func(t *testing.T) {
		each(t, func(t *testing.T, version string) {
			got := objects(t, template(t, version, "mcp-warden", namespace, append(asImage, "metrics.enabled=true")...))
			likeKustomize(t, got)
			if diff := cmp.Diff(kustomized(t, manifests), got); diff != "" {
				t.Errorf("the chart differs from config/default with config/metrics (-kustomize +Helm):\n%s", diff)
			}
		})
	})
}

func TestLimitedChartGivesTheRightsOfALimitedInstall(t *testing.T) {
	for _, test := range []struct{ namespaces, dns string }{
		{`["tools","agents"]`, scope.DefaultClusterDNS},
		{`["default"]`, scope.DefaultClusterDNS},
		{`["kube-system","agents"]`, scope.DefaultClusterDNS},
		{`["agents"]`, "dns/coredns"},
		{`["default"]`, "default/dns"},
	} {
		each(t, func(t *testing.T, version string) {
			got := objects(t, template(t, version, "mcp-warden", namespace, append(asImage, "namespaces="+test.namespaces, `cluster.dnsService="`+test.dns+`"`)...))
			likeKustomize(t, got)
			var names []string
			if err := json.Unmarshal([]byte(test.namespaces), &names); err != nil {
				t.Fatal(err)
			}
			slices.Sort(names)
			manifests := installed
			if test.dns != scope.DefaultClusterDNS {
				manifests = bytes.ReplaceAll(manifests, []byte("- --leader-elect"), []byte("- --leader-elect\n        - --cluster-dns-service="+test.dns))
			}
			limited, err := scope.Limit(manifests, names)
			if err != nil {
				t.Fatal(err)
			}
			want := kustomized(t, limited)
			for _, all := range []map[string]*unstructured.Unstructured{got, want} { // in whatever order
				args := managerArgs(t, all)
				slices.Sort(args)
				setManagerArgs(t, all, args)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: the chart differs from hack/scope (-hack/scope +Helm):\n%s", test.namespaces, diff)
			}
		})
	}
}

func TestKindsAreThoseOfConfigAndStay(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		got := objects(t, template(t, version, "mcp-warden-crds", namespace))
		want := map[string]*unstructured.Unstructured{}
		for key, o := range objects(t, string(installed)) {
			if o.GetKind() == "CustomResourceDefinition" {
				want[key] = o
			}
		}
		for _, o := range got {
			annotations := o.GetAnnotations()
			if annotations["helm.sh/resource-policy"] != "keep" {
				t.Errorf("helm uninstall deletes %s, and with it every object of it", o.GetName())
			}
			delete(annotations, "helm.sh/resource-policy")
			o.SetAnnotations(annotations)
			o.SetLabels(nil)
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 2 {
			t.Errorf("%d kinds, want 2 as in config/crd (-config +Helm):\n%s", len(got), diff)
		}
	})
}

// everything turns on all that can be turned on.
var everything = []string{
	`replicas=3`, `imagePullSecrets=[{"name":"regcred"}]`, `priorityClassName="system-cluster-critical"`, `userNamespaces=true`,
	`nodeSelector={"kubernetes.io/os":"linux"}`, `tolerations=[{"key":"infra","operator":"Exists","effect":"NoSchedule"}]`,
	`affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"infra","operator":"Exists"}]}]}}}`,
	`topologySpreadConstraints=[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule"}]`,
	`cluster={"dnsService":"dns/coredns","cidrs":["10.0.0.0/8","fd00::/8"],"cniBackend":"none"}`, `workers=4`, `maxConcurrentRotations=2`, `logLevel="debug"`,
	`networkPolicy.apiServer={"cidrs":["192.0.2.1/32"],"ports":[8443]}`,
	`metrics={"enabled":true,"tlsSecretName":"tls","scrapers":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]}`,
	`metrics.serviceMonitor={"enabled":true,"labels":{"release":"prometheus"}}`, `metrics.prometheusRule.enabled=true`, `metrics.grafanaDashboard.enabled=true`,
}

// TestEveryObjectIsWellFormed decodes strictly what the API server would, in a namespace whose name looks like a number.
func TestEveryObjectIsWellFormed(t *testing.T) {
	const other = "123"
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	each(t, func(t *testing.T, version string) {
		for _, values := range [][]string{nil, everything, append(slices.Clone(everything), `namespaces=["agents","456"]`), {`replicas=1`, `networkPolicy.enabled=false`}} {
			manifests := template(t, version, "mcp-warden", other, values...)
			if strings.Contains(manifests, namespace) {
				t.Errorf("%v: the namespace %s is named, and is not the release's", values, namespace)
			}
			for key, o := range objects(t, manifests) {
				raw, err := json.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(o.GetAPIVersion(), "monitoring.coreos.com/v1") {
					continue // of the Prometheus operator: its schema is not here
				}
				if _, _, err := decoder.Decode(raw, nil, nil); err != nil {
					t.Errorf("%v: %s: %v", values, key, err)
				}
				if ns := o.GetNamespace(); ns != "" && !slices.Contains([]string{other, "default", "agents", "456", "dns"}, ns) {
					t.Errorf("%v: %s lies elsewhere", values, key)
				}
			}
		}
	})
}

func TestValuesReachTheOperator(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		all := objects(t, template(t, version, "mcp-warden", namespace, everything...))
		args := managerArgs(t, all)
		for _, want := range []string{"--cluster-dns-service=dns/coredns", "--cluster-cidrs=10.0.0.0/8,fd00::/8", "--cni-backend=none", "--workers=4",
			"--max-concurrent-rotations=2", "--zap-log-level=debug", "--metrics-bind-address=:8443", "--metrics-cert-dir=/etc/mcp-warden-metrics"} {
			if !slices.Contains(args, want) {
				t.Errorf("the operator gets no %s: %v", want, args)
			}
		}
		for _, key := range []string{"Deployment " + namespace + "/mcp-warden", "Deployment " + namespace + "/mcp-warden-canary",
			"DaemonSet " + namespace + "/mcp-warden-restricted-prober", "DaemonSet " + namespace + "/mcp-warden-unrestricted-prober"} {
			pod, _, _ := unstructured.NestedMap(all[key].Object, "spec", "template", "spec")
			if pod["priorityClassName"] != "system-cluster-critical" || pod["hostUsers"] != false || len(pod["imagePullSecrets"].([]any)) != 1 {
				t.Errorf("%s has not the priority class, the user namespace and the pull secrets of all pods: %v", key, pod)
			}
		}
		raw, _ := json.Marshal([]any{all["NetworkPolicy "+namespace+"/mcp-warden"].Object, all["NetworkPolicy "+namespace+"/mcp-warden-metrics"].Object})
		for _, want := range []string{`"cidr":"192.0.2.1/32"`, `"port":8443`, `"monitoring"`} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("the operator's NetworkPolicies say nothing of %s: %s", want, raw)
			}
		}
		for _, key := range []string{"ServiceMonitor", "PrometheusRule"} {
			if all[key+" "+namespace+"/mcp-warden"] == nil {
				t.Errorf("there is no %s", key)
			}
		}
	})
}

// TestWrongValuesAreRefused demands an error that names the value.
func TestWrongValuesAreRefused(t *testing.T) {
	tests := []struct{ namespace, value, want string }{
		{namespace, `replica=2`, "replica"},
		{namespace, `image.repo="x"`, "repo"},
		{namespace, `image.tag="a b"`, "image/tag"},
		{namespace, `image.digest="sha256:abc"`, "image/digest"},
		{namespace, `image.repository=""`, "image/repository"},
		{namespace, `replicas=0`, "replicas"},
		{namespace, `replicas="2"`, "replicas"},
		{namespace, `namespaces="agents"`, "namespaces"},
		{namespace, `namespaces=["Agents"]`, "namespaces/0"},
		{namespace, `namespaces=["a","a"]`, "namespaces"},
		{namespace, `namespaces=["` + namespace + `"]`, "is the operator's own namespace"},
		{namespace, `cluster.dnsService="kube-dns"`, "cluster/dnsService"},
		{namespace, `cluster.cidrs=["10.0.0.0"]`, "cluster/cidrs/0"},
		{namespace, `cluster.cniBackend="calico"`, "cluster/cniBackend"},
		{namespace, `logLevel=8`, "logLevel"},
		{namespace, `logLevel="trace"`, "logLevel"},
		{namespace, `resources.limits=null`, "limits"},
		{namespace, `resources.limits.memory="lots"`, "resources/limits/memory"},
		{namespace, `networkPolicy.apiServer.ports=[]`, "networkPolicy/apiServer/ports"},
		{namespace, `metrics.serviceMonitor.interval="often"`, "metrics/serviceMonitor/interval"},
		{namespace, `metrics.scrapers=[{}]`, "metrics/scrapers/0"},
		{namespace, `securityContext={"runAsUser":0}`, "securityContext"},
		{"default", `replicas=1`, "--namespace default: give the operator a namespace of its own"},
		{"kube-system", `replicas=1`, "--namespace kube-system: give the operator a namespace of its own"},
	}
	each(t, func(t *testing.T, version string) {
		for _, test := range tests {
			_, said, err := helm(t, version, "template", "mcp-warden", filepath.Join(root, "charts/mcp-warden"), "--namespace", test.namespace, "--set-json", test.value)
			if err == nil || !strings.Contains(strings.ReplaceAll(said, ".", "/"), strings.ReplaceAll(test.want, ".", "/")) {
				t.Errorf("%s in %s: %v, and it should say %q: %s", test.value, test.namespace, err, test.want, said)
			}
		}
	})
}

// TestDNSBesideTheAPIServer is what package scope refuses, too.
func TestDNSBesideTheAPIServer(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		_, said, err := helm(t, version, "template", "x", filepath.Join(root, "charts/mcp-warden"), "--namespace", namespace,
			"--set-json", `namespaces=["agents"]`, "--set-json", `cluster.dnsService="default/dns"`)
		if err == nil || !strings.Contains(said, "cluster.dnsService: default/dns lies beside the Service of the API server") {
			t.Errorf("%v: %s", err, said)
		}
	})
}

func TestChartsLint(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		for _, chart := range []string{"mcp-warden-crds", "mcp-warden"} {
			out, said, err := helm(t, version, "lint", "--strict", filepath.Join(root, "charts", chart), "--namespace", namespace)
			if err != nil {
				t.Errorf("%s lint --strict %s: %v\n%s%s", version, chart, err, out, said)
			}
		}
	})
}

// TestDependency is a chart of somebody else that has ours as a dependency, with a condition.
func TestDependency(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "charts"), 0o755); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{
			"Chart.yaml":  "apiVersion: v2\nname: platform\nversion: 1.0.0\ndependencies:\n- {name: mcp-warden, version: \">=0.0.0-0\", condition: mcp-warden.enabled}\n",
			"values.yaml": "global: {imageRegistry: registry.example}\nmcp-warden: {enabled: true, replicas: 1}\n",
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(filepath.Join(dir, "charts/mcp-warden"), os.DirFS(filepath.Join(root, "charts/mcp-warden"))); err != nil {
			t.Fatal(err)
		}
		out, said, err := helm(t, version, "template", "platform", dir, "--namespace", namespace)
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		if manager(t, objects(t, out), namespace) == nil {
			t.Error("there is no operator")
		}
	})
}
