package cli

import (
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Ways around a control that take more than one place of the manifest, or none that the control itself reads.
func TestWaysAroundWorkloadControls(t *testing.T) {
	for _, tc := range []struct{ name, id, old, new string }{
		{"AppArmor by annotation", "POD-12", "annotations: {}", "annotations: {container.apparmor.security.beta.kubernetes.io/web: unconfined}"},
		{"a path of the node behind a ConfigMap", "POD-10", "volumes: [", "volumes: [{name: host, configMap: {name: a}, hostPath: {path: /}}, "},
		{"the node's network under a policy", "NET-01", inPod, inPod + "      hostNetwork: true\n"},
	} {
		text := strings.Replace(goodWorkload, tc.old, tc.new, 1)
		_, verdict := judgeWorkloads(t, text)
		if text == goodWorkload || len(verdict.Workloads) != 1 {
			t.Errorf("%s: not judged: %+v", tc.name, verdict.Invalid)
			continue
		}
		if r := resultOf(&verdict, tc.id); r.Result != v1alpha1.ControlFail {
			t.Errorf("%s: %s is %s", tc.name, tc.id, r.Result)
		}
	}
}

// A workload without containers would meet every control.
func TestWorkloadWithoutContainers(t *testing.T) {
	for _, text := range []string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n",
	} {
		if code, verdict := judgeWorkloads(t, text); code != exitViolations || len(verdict.Invalid) != 1 || len(verdict.Workloads) > 0 {
			t.Errorf("exit %d: %+v", code, verdict)
		}
	}
}

// An exemption that nothing needs is told of, and fails nothing.
func TestNeedlessExemption(t *testing.T) {
	text := strings.Replace(goodWorkload, "name: web, namespace: agents}", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-07: it needs it}}", 1)
	_, needless := judgeWorkloads(t, text)
	if len(needless.Notes) != 1 || !strings.Contains(needless.Notes[0], "exemption from POD-07 and needs none") {
		t.Errorf("notes: %q", needless.Notes)
	}
	_, needed := judgeWorkloads(t, strings.Replace(text, "      automountServiceAccountToken: false\n", "", 1))
	if len(needed.Notes) > 0 {
		t.Errorf("notes: %q", needed.Notes)
	}
}
