package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const goodWorkload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: agents}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      volumes: [{name: tmp, emptyDir: {sizeLimit: 1Mi}}]
      securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
      initContainers: []
      containers:
      - name: web
        image: registry.example/web:v1
        args: []
        env: []
        ports: []
        resources: {limits: {cpu: "1", memory: 64Mi, ephemeral-storage: 1Mi}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Namespace
metadata: {name: agents, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: agents}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 443}]}]
`

func judgeWorkloads(t *testing.T, text string) (int, lintVerdict) {
	t.Helper()
	code, stdout, stderr := command(t, text, "lint", "--workloads", "-f", "-", "-o", "json")
	out := lintVerdict{}
	if err := json.Unmarshal([]byte(stdout), &out); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	return code, out
}

func resultOf(v *lintVerdict, id string) controlResult {
	for _, r := range v.Workloads[0].Results {
		if string(r.ID) == id {
			return r
		}
	}
	return controlResult{}
}

func TestGoodWorkloadPasses(t *testing.T) {
	code, verdict := judgeWorkloads(t, goodWorkload)
	if code != exitOK || len(verdict.Workloads) != 1 {
		t.Fatalf("exit %d: %+v", code, verdict)
	}
	for _, r := range verdict.Workloads[0].Results {
		if r.Result != v1alpha1.ControlPass {
			t.Errorf("%s: %s: %s", r.ID, r.Result, r.Message)
		}
	}
	if _, stdout, _ := command(t, strings.Replace(goodWorkload, "drop: [ALL]", "drop: []", 1), "lint", "-f", "-"); !strings.Contains(stdout, "No MCPServer was found") {
		t.Errorf("without the flag it is judged: %s", stdout)
	}
}

const (
	inPod        = "      enableServiceLinks: false\n"
	inPodContext = "securityContext: {runAsNonRoot: true, "
	inContext    = "securityContext: {allowPrivilegeEscalation: false, "
	inits        = "initContainers: []"
)

// Every way around a control fails that control, and the line of the manifest is named.
func TestBadWorkloads(t *testing.T) {
	for _, tc := range []struct{ name, id, old, new string }{
		{"root of the container over the pod's user", "POD-02", inContext, inContext + "runAsUser: 0, "},
		{"root of the group", "POD-02", inPodContext + "runAsUser: 1000, runAsGroup: 1000", inPodContext + "runAsUser: 1000, runAsGroup: 0"},
		{"root's fsGroup", "POD-02", inPodContext, inPodContext + "fsGroup: 0, "},
		{"no user", "POD-02", "runAsUser: 1000, ", ""},
		{"a container that may be root", "POD-02", inContext, inContext + "runAsNonRoot: false, "},
		{"an init container that is bare", "POD-02", inits, "initContainers: [{name: init, image: x, securityContext: {runAsUser: 0}}]"},
		{"an init container that writes", "POD-03", inits, "initContainers: [{name: init, image: x}]"},
		{"a root that can be written to", "POD-03", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
		{"a root that is left to the default", "POD-03", "readOnlyRootFilesystem: true, ", ""},
		{"a capability", "POD-04", "drop: [ALL]", "drop: [ALL], add: [NET_RAW]"},
		{"nearly all capabilities", "POD-04", "drop: [ALL]", "drop: [NET_RAW]"},
		{"privileged", "POD-05", inContext, inContext + "privileged: true, "},
		{"escalation by default", "POD-05", "allowPrivilegeEscalation: false, ", ""},
		{"unconfined by seccomp", "POD-06", inContext, inContext + "seccompProfile: {type: Unconfined}, "},
		{"no seccomp", "POD-06", ", seccompProfile: {type: RuntimeDefault}", ""},
		{"a token by default", "POD-07", "      automountServiceAccountToken: false\n", ""},
		{"a token that is projected", "POD-07", "volumes: [", "volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token}}]}}, "},
		{"service links by default", "POD-08", inPod, ""},
		{"the node's network", "POD-09", inPod, inPod + "      hostNetwork: true\n"},
		{"the node's processes", "POD-09", inPod, inPod + "      hostPID: true\n"},
		{"the node's IPC", "POD-09", inPod, inPod + "      hostIPC: true\n"},
		{"each other's processes", "POD-09", inPod, inPod + "      shareProcessNamespace: true\n"},
		{"a port of the node", "POD-09", "ports: []", "ports: [{containerPort: 80, hostPort: 80}]"},
		{"a path of the node", "POD-10", "volumes: [", "volumes: [{name: host, hostPath: {path: /}}, "},
		{"a driver's volume", "POD-10", "volumes: [", "volumes: [{name: host, csi: {driver: x}}, "},
		{"a device", "POD-10", inPod, inPod + "      resourceClaims: [{name: gpu}]\n"},
		{"no limit", "POD-11", "memory: 64Mi, ", ""},
		{"a limit of nothing", "POD-11", "memory: 64Mi", "memory: 0"},
		{"a folder without end", "POD-11", "sizeLimit: 1Mi", ""},
		{"a folder by default", "POD-11", "emptyDir: {sizeLimit: 1Mi}", ""},
		{"a sysctl", "POD-12", inPodContext, inPodContext + "sysctls: [{name: kernel.msgmax, value: '1'}], "},
		{"proc", "POD-12", inContext, inContext + "procMount: Unmasked, "},
		{"AppArmor", "POD-12", inContext, inContext + "appArmorProfile: {type: Unconfined}, "},
		{"SELinux", "POD-12", inContext, inContext + "seLinuxOptions: {type: spc_t}, "},
		{"a process of a Windows node", "POD-12", inPodContext, inPodContext + "windowsOptions: {hostProcess: true}, "},
		{"a pod that no policy selects", "NET-01", "podSelector: {matchLabels: {app: web}}", "podSelector: {matchLabels: {app: other}}"},
		{"egress that is open", "NET-01", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]"},
		{"metadata", "NET-06", "203.0.113.0/24", "169.254.169.254/32"},
		{"a rule without peers", "NET-06", "to: [{ipBlock: {cidr: 203.0.113.0/24}}], ", ""},
		{"everything", "NET-07", "cidr: 203.0.113.0/24", "cidr: 0.0.0.0/0, except: [169.254.0.0/16]"},
		{"any resolver", "NET-08", "port: 443", "port: 53"},
		{"a second network", "NET-14", "annotations: {}", "annotations: {k8s.v1.cni.cncf.io/networks: x}"},
		{"every pod", "NET-17", "ipBlock: {cidr: 203.0.113.0/24}", "namespaceSelector: {}"},
		{"a credential in a variable", "SEC-01", "env: []", "env: [{name: DB_PASSWORD, value: hunter2-Xq81}]"},
		{"a credential in an argument", "SEC-01", "args: []", "args: [--password, hunter2-Xq81]"},
		{"a namespace without a standard", "OPS-03", "pod-security.kubernetes.io/enforce: restricted", "a: b"},
		{"a shared namespace", "OPS-07", "name: web, namespace: agents", "name: web, namespace: default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(goodWorkload, tc.old, tc.new, 1)
			if text == goodWorkload {
				t.Fatal("the case changes nothing")
			}
			_, verdict := judgeWorkloads(t, text)
			if len(verdict.Workloads) != 1 {
				t.Fatalf("not judged: %+v", verdict.Invalid)
			}
			r := resultOf(&verdict, tc.id)
			if r.Result != v1alpha1.ControlFail || len(r.Findings) == 0 || r.Findings[0].Line < 1 {
				t.Errorf("%s: %s: %+v", tc.id, r.Result, r.Findings)
			}
			if strings.Contains(r.Message, "hunter2") {
				t.Error("a value is repeated")
			}
		})
	}
}

// What the input does not hold is Unknown, and no pass.
func TestWorkloadsUnknown(t *testing.T) {
	code, verdict := judgeWorkloads(t, strings.Split(goodWorkload, "---")[0])
	for _, id := range []string{"NET-01", "NET-06", "NET-07", "NET-08", "NET-17", "OPS-03"} {
		if r := resultOf(&verdict, id); r.Result != v1alpha1.ControlUnknown {
			t.Errorf("%s: %s: %s", id, r.Result, r.Message)
		}
	}
	if code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestEveryKindOfWorkload(t *testing.T) {
	pod := "spec: {containers: [{name: a, image: a, securityContext: {privileged: true}}]}"
	for kind, text := range map[string]string{
		"apps/v1 StatefulSet": "spec: {template: {" + pod + "}}", "apps/v1 DaemonSet": "spec: {template: {" + pod + "}}", "apps/v1 ReplicaSet": "spec: {template: {" + pod + "}}",
		"batch/v1 Job": "spec: {template: {" + pod + "}}", "batch/v1 CronJob": "spec: {jobTemplate: {spec: {template: {" + pod + "}}}}", "v1 Pod": pod,
	} {
		version, kind, _ := strings.Cut(kind, " ")
		code, verdict := judgeWorkloads(t, "apiVersion: "+version+"\nkind: "+kind+"\nmetadata: {name: a}\n"+text+"\n")
		if code != exitViolations || len(verdict.Workloads) != 1 || resultOf(&verdict, "POD-05").Result != v1alpha1.ControlFail {
			t.Errorf("%s: exit %d: %+v", kind, code, verdict)
			continue
		}
		if at := resultOf(&verdict, "POD-05").Findings[0]; at.Line != 4 || at.Column < 20 {
			t.Errorf("%s is at %+v", kind, at.place)
		}
	}
}

// What cannot be read as its kind passes nothing.
func TestInvalidWorkloads(t *testing.T) {
	for name, change := range map[string][2]string{
		"an unknown field":     {"readOnlyRootFilesystem", "readonlyRootFilesystem"},
		"another type":         {"enableServiceLinks: false", "enableServiceLinks: hunter2"},
		"no reason":            {"name: web, namespace: agents", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-07: ''}"},
		"no control":           {"name: web, namespace: agents", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-99: x}"},
		"a control of servers": {"name: web, namespace: agents", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-01: x}"},
		"a server's workload":  {"name: web, namespace: agents", "name: web, namespace: agents, labels: {mcpwarden.io/server: web}, annotations: {lint.mcpwarden.io/exempt-POD-07: x}"},
		"a server's pods":      {"labels: {app: web}\n      annotations", "labels: {app: web, mcpwarden.io/server: web}\n      annotations"},
	} {
		text := strings.Replace(goodWorkload, change[0], change[1], 1)
		if name == "a server's pods" {
			text = strings.Replace(text, "name: web, namespace: agents", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-07: x}", 1)
		}
		code, verdict := judgeWorkloads(t, text)
		if code != exitViolations || len(verdict.Invalid) != 1 {
			t.Errorf("%s: exit %d: %+v", name, code, verdict.Invalid)
			continue
		}
		if strings.Contains(verdict.Invalid[0].Message, "hunter2") {
			t.Errorf("%s: a value is repeated", name)
		}
	}
}

// An exemption is shown with its reason, covers its control alone, and nothing that a policy demands.
func TestExemptions(t *testing.T) {
	text := strings.NewReplacer("name: web, namespace: agents}\nspec:\n  selector", "name: web, namespace: agents, annotations: {lint.mcpwarden.io/exempt-POD-07: it needs it, lint.mcpwarden.io/exempt-IMG-02: x}}\nspec:\n  selector",
		"      automountServiceAccountToken: false\n", "").Replace(goodWorkload)
	code, verdict := judgeWorkloads(t, text)
	if r := resultOf(&verdict, "POD-07"); code != exitOK || r.Result != v1alpha1.ControlExempted || r.Reason != "it needs it" {
		t.Errorf("exit %d: %+v %+v", code, r, verdict.Invalid)
	}
	_, stdout, _ := command(t, text, "lint", "--workloads", "-f", "-")
	if !strings.Contains(stdout, "exempted: POD-07 (High)") || !strings.Contains(stdout, "[exempted: it needs it]") || !strings.Contains(stdout, "1 exempted") {
		t.Errorf("not shown: %s", stdout)
	}
	if _, sarif, _ := command(t, text, "lint", "--workloads", "-f", "-", "-o", "sarif"); !strings.Contains(sarif, `"justification": "it needs it"`) {
		t.Error("SARIF lacks the reason")
	}
	policy := "---\napiVersion: mcpwarden.io/v1alpha1\nkind: MCPPolicy\nmetadata: {name: p}\nspec: {action: Audit, namespaceSelector: {}, images: {requireDigest: true, allowedRepositories: [other.example/x]}, pods: {requireUserNamespace: true, allowedRuntimeClassNames: [kata], maxResources: {cpu: 100m}}}\n"
	code, verdict = judgeWorkloads(t, text+policy)
	for _, id := range []string{"IMG-01", "IMG-02", "POD-15", "POD-16", "POD-17"} {
		if r := resultOf(&verdict, id); code != exitViolations || r.Result != v1alpha1.ControlFail || !r.Counts {
			t.Errorf("%s: exit %d: %+v %+v", id, code, r, verdict.Invalid)
		}
	}
	server := strings.Replace(goodServer, "namespace: agents}", "namespace: agents, annotations: {lint.mcpwarden.io/exempt-IMG-02: x}}", 1)
	if _, stdout, _ := command(t, server, "lint", "--workloads", "-f", "-"); !strings.Contains(stdout, "warning: IMG-02") {
		t.Errorf("an MCPServer exempts itself: %s", stdout)
	}
}

// What render shows of a server passes as workloads.
func TestRenderedServersPass(t *testing.T) {
	for _, server := range []string{goodServer, goodServer + "  network: {egress: [{to: {host: api.github.com}, ports: [443]}]}\n  env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: github, key: token}}}]\n"} {
		_, rendered, _ := command(t, server, "render", "-f", "-")
		code, verdict := judgeWorkloads(t, rendered)
		if code != exitOK || len(verdict.Workloads) != 1 || len(verdict.Invalid) > 0 {
			t.Fatalf("exit %d, %d workloads: %+v", code, len(verdict.Workloads), verdict.Invalid)
		}
		for _, r := range verdict.Workloads[0].Results {
			if r.Result == v1alpha1.ControlFail {
				t.Errorf("%s: %s", r.ID, r.Message)
			}
		}
	}
}
