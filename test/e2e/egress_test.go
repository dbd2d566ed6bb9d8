//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/test/e2e/attacks"
)

// listed is a host that every caller may reach, by TLS and by plain HTTP.
const listed = "api.example.test"

func hostRule(host string, ports ...int32) v1alpha1.EgressRule {
	return v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Host: host}, Ports: ports}
}

// newCallingServer declares a server with host rules, which trusts the authority of the internet's web servers.
func newCallingServer(t *testing.T, namespace, name string, rules ...v1alpha1.EgressRule) *v1alpha1.MCPServer {
	t.Helper()
	trust := &corev1.ConfigMap{}
	trust.Namespace, trust.Name = namespace, "authority"
	ca, err := os.ReadFile(filepath.Join(filepath.Dir(os.Getenv("KUBECONFIG")), "internet", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	trust.Data = map[string]string{"ca.crt": string(ca)}
	if err := k8s.Create(t.Context(), trust); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	return newServer(t, namespace, name, func(s *v1alpha1.MCPServerSpec) {
		s.Network = &v1alpha1.Network{Egress: rules}
		s.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{{MountPath: "/trust", ConfigMapName: "authority"}}}
		for _, name := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
			s.Env = append(s.Env, v1alpha1.EnvVar{Name: name, Value: new("/trust/ca.crt")})
		}
	})
}

// outcome of one attempt among several.
type outcome struct {
	Said string `json:"said"`
	OK   bool   `json:"ok"`
}

// all makes many attempts inside a pod.
func all(t *testing.T, pod *corev1.Pod, attempts [][]string) []outcome {
	t.Helper()
	list, err := json.Marshal(attempts)
	if err != nil {
		t.Fatal(err)
	}
	said, err := in(t, pod, "/toolbox", "all", string(list))
	var out []outcome
	if err := json.Unmarshal([]byte(said), &out); err != nil || len(out) != len(attempts) {
		t.Fatalf("%d attempts in pod %s: %v: %s", len(attempts), pod.Name, err, said)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lines of the log of the proxies of a namespace.
func proxyLog(t *testing.T, namespace string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv("E2E_LOCALCLUSTER"), "exec", "--name", os.Getenv("E2E_CLUSTER"), "--",
		"kubectl", "-n", namespace, "logs", "deployment/"+plan.EgressProxyName, "--all-pods")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read the proxies' log: %v", err)
	}
	return string(out)
}

// proxyPod is one pod of a namespace's proxy.
func proxyPod(t *testing.T, namespace string) *corev1.Pod {
	t.Helper()
	pods := &corev1.PodList{}
	if err := k8s.List(t.Context(), pods, client.InNamespace(namespace), client.MatchingLabels(plan.EgressProxyLabels())); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pods.Items[i].Status.PodIP != "" && pods.Items[i].DeletionTimestamp == nil {
			return &pods.Items[i]
		}
	}
	t.Fatal("the proxy has no pod")
	return nil
}

// basic is the credential that a server shows to the proxy, under some name.
func basic(t *testing.T, user string, server *v1alpha1.MCPServer) string {
	t.Helper()
	secret := &corev1.Secret{}
	if err := k8s.Get(t.Context(), client.ObjectKey{Namespace: server.Namespace, Name: plan.CredentialName(server.Name)}, secret); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(append([]byte(user+":"), secret.Data[plan.CredentialKey]...))
}

// reachesListed makes the control: the server reaches a listed host, by TLS and by plain HTTP.
func reachesListed(t *testing.T, when string, pod *corev1.Pod) {
	t.Helper()
	eventually(t, func(context.Context) error { // policies of new pods take the node a moment
		for _, o := range all(t, pod, [][]string{{"tunnel", listed + ":443", listed}, {"fetch", "https://" + listed + "/"}, {"fetch", "http://" + listed + "/"}}) {
			if !o.OK || !strings.Contains(o.Said, `"host":"`+listed+`"`) {
				return fmt.Errorf("%s, the listed host is not reached: %s", when, o.Said)
			}
		}
		return nil
	})
}

// TestEgressAttacks works through the list of docs/egress.md from inside a server's pod.
func TestEgressAttacks(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule(listed, 80, 443), hostRule("*.example.test", 443), hostRule("*.turning.test", 443), hostRule("metadata.google.internal", 80))
	other := newCallingServer(t, ns, "other", hostRule("evil.test", 443))
	target, serviceIP := newTarget(t, ns)
	free := newPod(t, ns, "free", nil, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)
	waitReason(t, other, v1alpha1.ReasonServing)
	pod, found := podOf(t, server), find(t)
	words := strings.NewReplacer("{dns}", found.dns, "{api}", found.apiServer, "{node}", found.node, "{pod}", target.Status.PodIP,
		"{service}", serviceIP, "{proxy}", proxyPod(t, ns).Status.PodIP, "{stolen}", basic(t, "caller", other), "{borrowed}", basic(t, "other", server))
	reachesListed(t, "before the attacks", pod)
	if o := all(t, podOf(t, other), [][]string{{"tunnel", "evil.test:443", "evil.test"}}); !o[0].OK {
		t.Fatalf("the host that the attacks aim at is not up: %s", o[0].Said)
	}

	list := attacks.All()
	made, controls := make([][]string, len(list)), [][]string{}
	for i, a := range list {
		for _, word := range a.Args {
			made[i] = append(made[i], words.Replace(word))
		}
		if a.Free {
			controls = append(controls, made[i])
		}
	}
	fromServer, fromFree := all(t, pod, made), all(t, free, made)
	for i, a := range list {
		t.Run(a.ID, func(t *testing.T) { judge(t, a, fromServer[i], fromFree[i]) })
	}
	reachesListed(t, "after the attacks", pod)
	log := proxyLog(t, ns)
	for _, a := range list {
		if a.Audit != "" && !strings.Contains(log, `"decision":"Denied","reason":"`+a.Audit+`"`) {
			t.Errorf("%s: the audit log has no line with the reason %s", a.ID, a.Audit)
		}
	}
	if len(controls) < 15 {
		t.Errorf("%d attempts have a control of their own, want at least 15", len(controls))
	}
	for _, secret := range []string{basic(t, "caller", server), basic(t, "other", other)} {
		raw, _ := base64.StdEncoding.DecodeString(secret)
		if _, token, _ := strings.Cut(string(raw), ":"); strings.Contains(log, token) || strings.Contains(log, secret) {
			t.Error("a credential is in the audit log")
		}
	}
}

// judge says whether an attempt was blocked, by what should block it, and on a network that works.
func judge(t *testing.T, a attacks.Attack, server, free outcome) {
	switch {
	case a.Free && !free.OK:
		t.Errorf("the control failed, so that nothing is shown: %s", free.Said)
	case a.Stranger:
		if free.OK || !server.OK {
			t.Errorf("the stranger: %+v; the server: %+v", free, server)
		}
	case a.Never != "":
		if strings.Contains(server.Said, a.Never) || !strings.Contains(server.Said, "HTTP/1.1") {
			t.Errorf("%s", server.Said)
		}
	case server.OK:
		t.Errorf("it succeeded: %s", server.Said)
	case a.Reason != "" && !strings.Contains(server.Said, a.Reason):
		t.Errorf("it failed, and not for %s: %s", a.Reason, server.Said)
	}
}

// TestEgressRebinding asks for names whose address is another one with each query (M01).
func TestEgressRebinding(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule("*.turning.test", 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	var tries [][]string
	for i := range 20 {
		name := fmt.Sprintf("name-%d.turning.test", i)
		tries = append(tries, []string{"tunnel", name + ":443", name})
	}
	reached, refused := 0, 0
	for _, o := range all(t, podOf(t, server), tries) {
		switch {
		case o.OK && strings.Contains(o.Said, `"server":"203.0.113.14:443"`):
			reached++
		case !o.OK && strings.Contains(o.Said, "AddressForbidden"):
			refused++
		default:
			t.Errorf("neither the address that was checked nor a refusal: %s", o.Said)
		}
	}
	if reached == 0 || refused == 0 {
		t.Errorf("%d reached, %d refused: the address did not turn", reached, refused)
	}
}

// TestEgressHalfOpen leaves a thousand connections in the middle of things, while another server of the
// namespace goes on (M02).
func TestEgressHalfOpen(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	attacker, neighbour := newCallingServer(t, ns, "attacker", hostRule(listed, 443)), newCallingServer(t, ns, "neighbour", hostRule(listed, 80, 443))
	waitReason(t, attacker, v1alpha1.ReasonServing)
	waitReason(t, neighbour, v1alpha1.ReasonServing)
	from := podOf(t, neighbour)
	reachesListed(t, "before", from)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan string)
	go func() {
		said, _ := inContext(ctx, podOf(t, attacker), "/toolbox", "halfopen", "1000", "8", listed+":443")
		done <- said
	}()
	defer stop()
	failed, rounds := 0, 0
	for said := ""; said == ""; {
		for _, o := range all(t, from, [][]string{{"fetch", "https://" + listed + "/"}, {"fetch", "http://" + listed + "/"}}) {
			rounds++
			if !o.OK {
				failed++
				t.Logf("the neighbour: %s", o.Said)
			}
		}
		select {
		case said = <-done:
			if !regexp.MustCompile(`\d{3,} half-open`).MatchString(said) {
				t.Errorf("the attack was not made: %s", said)
			}
		default:
		}
	}
	if failed > 0 || rounds < 4 {
		t.Errorf("%d of %d requests of the neighbour failed", failed, rounds)
	}
}

// TestEgressFollowsTheSpec changes rules under an open tunnel (M03, M04): within 5 s it is closed, and
// the other server's goes on.
func TestEgressFollowsTheSpec(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*v1alpha1.MCPServerSpec){
		"M03": func(s *v1alpha1.MCPServerSpec) { s.Network.Egress = s.Network.Egress[:1] },
		"M04": func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateQuarantined },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			server, other := newCallingServer(t, ns, "caller", hostRule("www.example.test", 443), hostRule(listed, 443)), newCallingServer(t, ns, "other", hostRule(listed, 443))
			waitReason(t, server, v1alpha1.ReasonServing)
			waitReason(t, other, v1alpha1.ReasonServing)
			closed, kept := held(t, podOf(t, server)), held(t, podOf(t, other))
			began := time.Now()
			change(t, server, end)
			said := <-closed
			took := time.Since(began)
			if !strings.Contains(said, "failed: closed after") || took > 7*time.Second {
				t.Errorf("after %s: %s", took, said)
			}
			t.Logf("closed %s after the change of the spec, with the start and the end of kubectl exec", took.Round(time.Millisecond))
			if said := <-kept; !strings.Contains(said, "still open") {
				t.Errorf("the other server's tunnel: %s", said)
			}
		})
	}
}

// held opens a tunnel in a pod, returns once it is open, and sends what came of it.
func held(t *testing.T, pod *corev1.Pod) <-chan string {
	t.Helper()
	cmd := inside(t.Context(), pod, "/toolbox", "hold", listed+":443", listed, "20")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("open\n"))
	if _, err := io.ReadFull(out, first); err != nil || string(first) != "open\n" {
		t.Fatalf("the tunnel does not open: %q, %v", first, err)
	}
	ended := make(chan string, 1)
	go func() {
		var rest bytes.Buffer
		_, _ = rest.ReadFrom(out)
		_ = cmd.Wait()
		ended <- strings.TrimSpace(rest.String())
	}()
	return ended
}

// TestEgressNormalForm writes a listed name in other ways (M05).
func TestEgressNormalForm(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule(listed, 80, 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	pod := podOf(t, server)
	reachesListed(t, "at first", pod)
	for _, o := range all(t, pod, [][]string{
		{"tunnel", "API.Example.TEST:443", listed}, {"tunnel", listed + ".:443", listed}, {"tunnel", listed + ":443", "API.example.test"},
	}) {
		if !o.OK || !strings.Contains(o.Said, `"server":"203.0.113.10:443"`) {
			t.Errorf("the same name in another form is not reached: %s", o.Said)
		}
	}
}

// TestCiliumStopsATakenOverProxy puts a pod in the place of the proxy's and has it do as it likes (M06).
func TestCiliumStopsATakenOverProxy(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule(listed, 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	found := find(t)
	free := newPod(t, ns, "free", nil, "/toolbox", "serve", ":7000")
	taken := newPod(t, ns, "taken-over", plan.EgressProxyLabels(), "/toolbox", "serve", ":7000")
	attempts := [][]string{
		{"lookup", "udp", found.dns, listed + "."}, {"dial", "tcp", "203.0.113.10:443"}, // what the rule names
		{"lookup", "udp", found.dns, "evil.test."}, {"dial", "tcp", "203.0.113.12:443"}, {"dial", "tcp", "203.0.113.10:80"},
		{"dial", "tcp", found.apiServer}, {"lookup", "udp", outsideDNS, listed + "."},
	}
	for i, o := range all(t, free, attempts) {
		if !o.OK {
			t.Fatalf("the control %v failed: %s", attempts[i], o.Said)
		}
	}
	succeeds(t, taken, attempts[0]...)
	for i, o := range all(t, taken, attempts[1:]) {
		if want := i == 0; o.OK != want {
			t.Errorf("%v: %+v, want %t", attempts[i+1], o, want)
		}
	}
}

// TestEgressProxyGoes shows that nothing of the proxy outlives the last rule.
func TestEgressProxyGoes(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule(listed, 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	change(t, server, func(s *v1alpha1.MCPServerSpec) { s.Network = nil })
	eventually(t, func(ctx context.Context) error {
		var left []string
		for _, kind := range []client.ObjectList{&corev1.PodList{}, &corev1.ServiceList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}} {
			if err := k8s.List(ctx, kind, client.InNamespace(ns), client.MatchingLabels(plan.EgressProxyLabels())); err != nil {
				return err
			}
			raw, err := json.Marshal(kind)
			if err != nil {
				return err
			}
			if !bytes.Contains(raw, []byte(`"items":null`)) && !bytes.Contains(raw, []byte(`"items":[]`)) {
				left = append(left, fmt.Sprintf("%T", kind))
			}
		}
		if slices.Sort(left); len(left) > 0 {
			return fmt.Errorf("of the proxy are left: %v", left)
		}
		return nil
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	fails(t, podOf(t, server), "env", "HTTPS_PROXY")
}

// TestRealClientsReachAListedHost runs clients as people use them, with no configuration of their own:
// that they trust the web servers' authority is the one thing that they are told.
func TestRealClientsReachAListedHost(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newCallingServer(t, ns, "caller", hostRule(listed, 80, 443))
	change(t, server, func(s *v1alpha1.MCPServerSpec) { s.Image = imageFrom(t, "CLIENTS_IMAGE") })
	node := newNodeServer(t, ns, "node", hostRule(listed, 80, 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	waitReason(t, node, v1alpha1.ReasonServing)
	reachesListed(t, "by Go", podOf(t, server))
	script := func(program, text string) func(string) []string {
		return func(url string) []string {
			return append(strings.Fields(program), strings.ReplaceAll(text, "URL", url))
		}
	}
	for _, c := range []struct {
		name    string
		pod     *corev1.Pod
		schemes []string
		refused string // is in what it says when the proxy refuses
		command func(url string) []string
	}{
		{"curl", podOf(t, server), []string{"https", "http"}, "403", script("/usr/bin/curl -fsS --max-time 10", "URL")},
		{"Python", podOf(t, server), []string{"https", "http"}, "403", script("/usr/bin/python3 -c", "import urllib.request; print(urllib.request.urlopen('URL', timeout=10).read().decode())")},
		// Node's fetch asks for a tunnel for http:// too, and nothing but TLS goes through one.
		{"Node-fetch", podOf(t, node), []string{"https"}, "fetch failed", script("/usr/bin/node -e", "fetch('URL').then(r => r.text()).then(console.log)")},
		{"Node-http", podOf(t, node), []string{"https", "http"}, "403", script("/usr/bin/node -e", "require('URL'.split(':')[0]).get('URL', r => { console.log(r.statusCode); r.pipe(process.stdout); process.exitCode = r.statusCode === 200 ? 0 : 1 })")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, scheme := range c.schemes {
				said, err := in(t, c.pod, c.command(scheme+"://"+listed+"/by/"+c.name)...)
				if err != nil || !strings.Contains(said, `"host":"`+listed+`","path":"/by/`+c.name+`"`) {
					t.Errorf("%s: %v: %s", scheme, err, said)
				}
				said, err = in(t, c.pod, c.command(scheme+"://evil.test/")...)
				if err == nil || strings.Contains(said, `"host"`) || !strings.Contains(said, c.refused) {
					t.Errorf("a host that is not listed, by %s: %v: %s", scheme, err, said)
				}
			}
		})
	}
}

// imageFrom is the reference of an image that hack/clients-image.sh made.
func imageFrom(t *testing.T, variable string) string {
	t.Helper()
	image := os.Getenv(variable)
	if image == "" {
		t.Fatalf("%s is not set: hack/clients-image.sh makes it", variable)
	}
	return image
}

// newNodeServer declares the MCP project's own server for Node, as npm has it.
func newNodeServer(t *testing.T, namespace, name string, rules ...v1alpha1.EgressRule) *v1alpha1.MCPServer {
	t.Helper()
	server := newCallingServer(t, namespace, name, rules...)
	change(t, server, func(s *v1alpha1.MCPServerSpec) {
		s.Image, s.Args, s.Transport.Path = imageFrom(t, "NODE_IMAGE"), nil, "/mcp"
		s.Env = append(s.Env, v1alpha1.EnvVar{Name: "PORT", Value: new(strconv.Itoa(serverPort))})
		s.Network.Ingress = []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "agent"}}}}
	})
	return server
}

// TestRealServerCallsOut has an MCP client call a tool that fetches a URL, of a server that others wrote
// and that knows of no proxy.
func TestRealServerCallsOut(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newNodeServer(t, ns, "everything", hostRule(listed, 443))
	waitReason(t, server, v1alpha1.ReasonServing)
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	succeeds(t, agent, "fetch", "http://evil.test/") // what the server must not reach is up
	fetched := func(url string) (string, error) {
		said, err := in(t, agent, "/mcpclient", endpointOf(server), "gzip-file-as-resource", `{"name":"page.gz","outputType":"resource","data":"`+url+`"}`)
		if _, result, ok := strings.Cut(said, `"blob":"`); ok {
			compressed, _, _ := strings.Cut(result, `"`)
			return unzipped(t, compressed), err
		}
		return said, err
	}
	said, err := fetched("https://" + listed + "/from/a/tool")
	if err != nil || !strings.Contains(said, `"host":"`+listed+`","path":"/from/a/tool"`) {
		t.Errorf("the listed host: %v: %s", err, said)
	}
	for _, url := range []string{"https://evil.test/", "http://evil.test/", "https://203.0.113.12/", "https://" + listed + ":9000/"} {
		if said, err := fetched(url); err == nil || !strings.Contains(said, "fetch failed") {
			t.Errorf("%s, which is not listed: %v: %s", url, err, said)
		}
	}
	log := proxyLog(t, ns)
	for _, line := range []string{`"decision":"Allowed","reason":"Listed"`, `"reason":"HostNotListed"`, `"reason":"AddressLiteral"`, `"reason":"PortNotListed"`} {
		if !strings.Contains(log, line) {
			t.Errorf("the audit log has no line with %s", line)
		}
	}
}

// unzipped is what was compressed with gzip and written in base64.
func unzipped(t *testing.T, text string) string {
	t.Helper()
	r, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
