package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// live is a cluster in which the commands of a test run.
type live struct {
	*testing.T
	admin      client.Client
	kubeconfig string
}

// kubectl runs a command against the cluster.
func (l live) kubectl(args ...string) (code int, stdout, stderr string) {
	l.Helper()
	return command(l.T, "", append(args, "--kubeconfig="+l.kubeconfig)...)
}

// expect runs a command and looks for the code, and for words in what it writes.
func (l live) expect(code int, says string, args ...string) string {
	l.Helper()
	got, stdout, stderr := l.kubectl(args...)
	if got != code || !strings.Contains(stdout+stderr, says) {
		l.Errorf("%s: exit %d, want %d with %q:\n%s%s", strings.Join(args, " "), got, code, says, stdout, stderr)
	}
	return stdout + stderr
}

// server makes one in a namespace.
func (l live) server(namespace, name string, change func(*v1alpha1.MCPServer)) *v1alpha1.MCPServer {
	l.Helper()
	out := &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.MCPServerSpec{
		Image: "registry.example/team/server:v1", Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))}}}
	if change != nil {
		change(out)
	}
	if err := l.admin.Create(l.Context(), out); err != nil {
		l.Fatal(err)
	}
	return out
}

// judge writes a verdict as the operator does.
func (l live) judge(server *v1alpha1.MCPServer, status metav1.ConditionStatus, controls ...v1alpha1.ControlStatus) {
	l.Helper()
	meta.SetStatusCondition(&server.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionPolicyCompliant, Status: status, Reason: "Test", Message: "what the condition says", ObservedGeneration: server.Generation})
	server.Status.Compliance = &v1alpha1.ComplianceStatus{Passed: 20, Controls: controls}
	for _, c := range controls {
		if c.Result == v1alpha1.ControlFail {
			server.Status.Compliance.Failed++
		}
	}
	if err := l.admin.Status().Update(l.Context(), server); err != nil {
		l.Fatal(err)
	}
}

// stored is the server as it is now.
func (l live) stored(server *v1alpha1.MCPServer) *v1alpha1.MCPServer {
	l.Helper()
	out := &v1alpha1.MCPServer{}
	if err := l.admin.Get(l.Context(), client.ObjectKeyFromObject(server), out); err != nil {
		l.Fatal(err)
	}
	return out
}

// TestOnACluster runs the commands that need one on a real API server.
func TestOnACluster(t *testing.T) {
	api, err := apiserver.Start(context.Background(), "cli", "kube-scheduler", "kube-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	admin, err := client.New(api.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agents", "empty"} {
		if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("report", func(t *testing.T) { testReport(live{t, admin, api.Kubeconfig}) })
	t.Run("rotate", func(t *testing.T) { testRotate(live{t, admin, api.Kubeconfig}) })
	t.Run("quarantine", func(t *testing.T) { testQuarantine(live{t, admin, api.Kubeconfig}) })
}

func testReport(l live) {
	good, bad := l.server("agents", "good", nil), l.server("agents", "bad", nil)
	l.server("default", "unjudged", nil)
	l.judge(good, metav1.ConditionTrue, v1alpha1.ControlStatus{ID: "POD-01", Result: v1alpha1.ControlPass, Severity: v1alpha1.SeverityHigh})
	l.judge(bad, metav1.ConditionFalse,
		v1alpha1.ControlStatus{ID: "POD-01", Result: v1alpha1.ControlPass, Severity: v1alpha1.SeverityHigh},
		v1alpha1.ControlStatus{ID: "NET-03", Result: v1alpha1.ControlFail, Severity: v1alpha1.SeverityHigh, Message: "NetworkPolicy x opens \x1b[31meverything"})

	l.expect(exitOK, "good", "report", "good", "-n", "agents")
	text := l.expect(exitViolations, "NET-03  Fail      High      NetworkPolicy x opens  [31meverything", "report", "bad", "-n", "agents")
	if strings.Contains(text, "POD-01") || strings.Contains(text, "\x1b") || !strings.Contains(text, "20 passed, 1 failed") {
		l.Errorf("the report says\n%q", text)
	}
	l.expect(exitViolations, "the operator has not judged it yet", "report", "unjudged", "-n", "default")
	list := l.expect(exitViolations, "agents     good      True       20      0       0        0         Running", "report", "-A")
	if !strings.Contains(list, "default    unjudged  Unknown ") || !strings.Contains(list, "agents     bad       False      20      1 ") {
		l.Errorf("the list says\n%s", list)
	}
	if list := l.expect(exitViolations, "agents", "report", "-n", "agents"); strings.Contains(list, "unjudged") {
		l.Errorf("the list of one namespace says\n%s", list)
	}
	l.expect(exitOK, "No MCPServers found.", "report", "-n", "empty")
	l.expect(exitUsage, `"missing" not found`, "report", "missing", "-n", "agents")
	l.expect(exitUsage, "leave out -A", "report", "bad", "-A")
	l.expect(exitUsage, "text, json or yaml", "report", "-o", "xml")
	l.expect(exitViolations, "controls:", "report", "bad", "-n", "agents", "-o", "yaml")
	_, raw, _ := l.kubectl("report", "-A", "-o", "json")
	var parsed struct{ Servers []verdict }
	if err := json.Unmarshal([]byte(raw), &parsed); err != nil || len(parsed.Servers) != 3 {
		l.Errorf("%v in\n%s", err, raw)
	}

	stale := l.stored(good)
	stale.Spec.Image = "registry.example/team/server:v2"
	if err := l.admin.Update(l.Context(), stale); err != nil {
		l.Fatal(err)
	}
	l.expect(exitViolations, "the verdict is about generation 1 of the spec, which is at 2 by now", "report", "good", "-n", "agents")
	if _, names, _ := command(l.T, "", "__complete", "report", "--kubeconfig="+l.kubeconfig, "-n", "agents", ""); !strings.Contains(names, "bad\ngood\n") {
		l.Errorf("a shell completes %q", names)
	}
}

func testRotate(l live) {
	without := l.server("agents", "without-secrets", nil)
	with := l.server("agents", "with-secrets", func(s *v1alpha1.MCPServer) {
		s.Spec.Env = []v1alpha1.EnvVar{{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "a", Key: "b"}}}}
	})
	l.expect(exitUsage, "there is nothing to rotate", "rotate", without.Name, "-n", "agents")
	l.expect(exitUsage, "accepts 1 arg", "rotate", "-n", "agents")
	l.expect(exitUsage, "--dry-run is none or server", "rotate", with.Name, "-n", "agents", "--dry-run=client")
	l.expect(exitOK, "mcpserver agents/with-secrets is asked to rotate: see kubectl warden report with-secrets (server dry run)", "rotate", with.Name, "-n", "agents", "--dry-run=server")
	if asked := l.stored(with).Annotations[v1alpha1.AnnotationRotateRequestedAt]; asked != "" {
		l.Errorf("a dry run wrote %s", asked)
	}
	last := ""
	for range 2 { // each time is another request
		l.expect(exitOK, "is asked to rotate", "rotate", with.Name, "-n", "agents")
		asked := l.stored(with).Annotations[v1alpha1.AnnotationRotateRequestedAt]
		if when, err := time.Parse(time.RFC3339Nano, asked); err != nil || time.Since(when).Abs() > time.Minute || asked == last {
			l.Errorf("the annotation says %q after %q: %v", asked, last, err)
		}
		last = asked
	}
	if now := l.stored(with); now.Generation != with.Generation {
		l.Error("the spec was changed")
	}
}

func testQuarantine(l live) {
	server := l.server("agents", "suspect", func(s *v1alpha1.MCPServer) {
		s.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "a"}
		s.Spec.Replicas = new(int32(2))
	})
	state := func(want v1alpha1.DesiredState, reason string) {
		l.Helper()
		now := l.stored(server)
		if now.Spec.DesiredState != want || now.Annotations[v1alpha1.AnnotationQuarantineReason] != reason || *now.Spec.Replicas != 2 || now.Annotations["argocd.argoproj.io/tracking-id"] != "a" {
			l.Errorf("the server is %q for %q, want %q for %q; the rest is %v", now.Spec.DesiredState, now.Annotations[v1alpha1.AnnotationQuarantineReason], want, reason, now)
		}
	}
	l.expect(exitUsage, "say why with --reason", "quarantine", "suspect", "-n", "agents")
	l.expect(exitUsage, "say why with --reason", "quarantine", "suspect", "-n", "agents", "--reason", " \n")
	l.expect(exitUsage, "has 513 characters, and may have 512", "quarantine", "suspect", "-n", "agents", "--reason", strings.Repeat("a", 513))
	l.expect(exitUsage, "is not in quarantine", "release", "suspect", "-n", "agents")
	l.expect(exitUsage, "not found", "quarantine", "missing", "-n", "agents", "--reason", "r")
	l.expect(exitOK, "(server dry run)", "quarantine", "suspect", "-n", "agents", "--reason", "r", "--dry-run=server")
	state("", "")
	l.expect(exitOK, "Note: Argo CD manages this server", "quarantine", "suspect", "-n", "agents", "--reason", "incident 4711")
	state(v1alpha1.StateQuarantined, "incident 4711")
	cut := l.stored(server)
	cut.Status.Quarantine = &v1alpha1.QuarantineStatus{Since: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Pods: []v1alpha1.QuarantinedPod{{Name: "a"}}}
	l.judge(cut, metav1.ConditionTrue)
	l.expect(exitOK, "cut off since 2026-01-02T03:04:05Z, with 1 pods: incident 4711", "report", "suspect", "-n", "agents")
	l.expect(exitOK, "mcpserver agents/suspect is released", "release", "suspect", "-n", "agents")
	state(v1alpha1.StateRunning, "")
}
