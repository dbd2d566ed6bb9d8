//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// verdictTime is how soon a verdict must have turned after what turns it.
const verdictTime = 10 * time.Second

// tamper is one change to live objects or to what surrounds them, and the control that must find it.
type tamper struct {
	name    string
	control v1alpha1.ControlID
	// objects are made, as YAML; see scene.fill for what stands for what.
	objects string
	// mutation is the expression of a JSON patch with which every pod of the server's account is changed at admission.
	mutation string
	// change changes something that is there, and returns what undoes it.
	change func(*testing.T, *scene) (undo func() error, err error)
}

// scene is the server that is tampered with.
type scene struct {
	server *v1alpha1.MCPServer
}

// fill puts the names of a scene into a manifest.
func (s *scene) fill(manifest string) string {
	return strings.NewReplacer("$NS", s.server.Namespace, "$SERVER", s.server.Name, "$IMAGE", os.Getenv("TESTBED_IMAGE")).Replace(manifest)
}

var tampers = []tamper{
	{name: "a policy that lets everybody in", control: "NET-02", objects: policyYAML(`{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`)},
	{name: "a policy that lets one namespace in", control: "NET-02", objects: policyYAML(`{podSelector: {matchLabels: {mcpwarden.io/server: $SERVER}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}]}]}`)},
	{name: "a policy that lets addresses in", control: "NET-02", objects: policyYAML(`{podSelector: {matchExpressions: [{key: mcpwarden.io/server, operator: Exists}]}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}`)},
	{name: "a policy without types that lets somebody in", control: "NET-02", objects: policyYAML(`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)},
	{name: "a policy that lets the server out", control: "NET-03", objects: policyYAML(`{podSelector: {}, policyTypes: [Egress], egress: [{}]}`)},
	{name: "a policy that lets the server out to one port", control: "NET-03", objects: policyYAML(`{podSelector: {matchLabels: {mcpwarden.io/server: $SERVER}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.7/32}}], ports: [{protocol: TCP, port: 443}]}]}`)},
	{name: "a policy that opens the metadata address", control: "NET-06", objects: policyYAML(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 169.254.169.254/32}}]}]}`)},
	{name: "a policy that opens a range around the metadata address", control: "NET-06", objects: policyYAML(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]}`)},
	{name: "a policy that opens DNS", control: "NET-08", objects: policyYAML(`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: UDP, port: 53}]}]}`)},
	{name: "a CiliumNetworkPolicy that lets the server out", control: "NET-04", objects: `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: extra, namespace: $NS}, spec: {endpointSelector: {}, egress: [{toEntities: [world]}]}}`},
	{name: "a CiliumNetworkPolicy that lets somebody in", control: "NET-04", objects: `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: extra, namespace: $NS}, spec: {endpointSelector: {matchLabels: {mcpwarden.io/server: $SERVER}}, ingress: [{fromEntities: [all]}]}}`},
	{name: "the second rule of a CiliumNetworkPolicy", control: "NET-04", objects: `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: extra, namespace: $NS}, specs: [{endpointSelector: {matchLabels: {app: other}}, ingress: [{}]}, {endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}]}`},
	{name: "a CiliumClusterwideNetworkPolicy", control: "NET-04", objects: `{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: extra-$NS}, spec: {endpointSelector: {matchLabels: {"k8s:io.kubernetes.pod.namespace": $NS}}, egress: [{toEntities: [world]}]}}`},

	{name: "a Service of type NodePort", control: "ACC-01", objects: serviceYAML(`type: NodePort`)},
	{name: "a Service of type LoadBalancer", control: "ACC-01", objects: serviceYAML(`type: LoadBalancer`)},
	{name: "a Service with an outside address", control: "ACC-01", objects: serviceYAML(`externalIPs: [203.0.113.9]`)},
	{name: "an Ingress", control: "ACC-02", objects: ingressYAML(`rules: [{host: x.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: $SERVER, port: {number: 8080}}}}]}}]`)},
	{name: "the default of an Ingress", control: "ACC-02", objects: ingressYAML(`defaultBackend: {service: {name: $SERVER, port: {number: 8080}}}`)},
	{name: "an Ingress to another Service of the server", control: "ACC-02", objects: serviceYAML(`type: ClusterIP`) + "\n---\n" + ingressYAML(`defaultBackend: {service: {name: extra, port: {number: 80}}}`)},

	{name: "a RoleBinding to the account", control: "ACC-05", objects: bindingYAML("RoleBinding", `kind: ClusterRole, name: view`, `{kind: ServiceAccount, name: $SERVER, namespace: $NS}`)},
	{name: "a RoleBinding to the account's user name", control: "ACC-05", objects: bindingYAML("RoleBinding", `kind: Role, name: any`, `{kind: User, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccount:$NS:$SERVER"}`)},
	{name: "a RoleBinding to all accounts of the namespace", control: "ACC-05", objects: bindingYAML("RoleBinding", `kind: ClusterRole, name: edit`, `{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccounts:$NS"}`)},
	{name: "a ClusterRoleBinding to the account", control: "ACC-05", objects: bindingYAML("ClusterRoleBinding", `kind: ClusterRole, name: view`, `{kind: ServiceAccount, name: $SERVER, namespace: $NS}`)},
	{name: "a ClusterRoleBinding to the namespace's accounts", control: "ACC-05", objects: bindingYAML("ClusterRoleBinding", `kind: ClusterRole, name: view`, `{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccounts:$NS"}`)},

	{name: "the namespace enforces nothing", control: "OPS-03", change: labelNamespace(nil)},
	{name: "the namespace lets anything pass", control: "OPS-03", change: labelNamespace(new("privileged"))},

	{name: "an ephemeral container", control: "POD-01", change: addEphemeral(`{"name": "debug", "image": "$IMAGE", "command": ["/toolbox", "serve", ":7001"]}`)},
	{name: "an ephemeral container that is root", control: "POD-02", change: addEphemeral(`{"name": "debug", "image": "$IMAGE", "command": ["/toolbox", "serve", ":7001"], "securityContext": {"runAsUser": 0, "runAsNonRoot": false}}`)},
	{name: "another image in a live pod", control: "IMG-03", change: changePod(`{"spec": {"containers": [{"name": "server", "image": "elsewhere.example/server:v1"}]}}`, false)},
	{name: "a live pod without its label", control: "POD-14", change: changePod(`{"metadata": {"labels": {"mcpwarden.io/server": null, "app.kubernetes.io/managed-by": null}}}`, true)},
	{name: "a pod of somebody else with the server's labels", control: "POD-13", objects: podYAML(`labels: {app.kubernetes.io/managed-by: mcp-warden, mcpwarden.io/server: $SERVER}`, ``)},
	{name: "a pod of somebody else under the server's account", control: "POD-14", objects: podYAML(``, `serviceAccountName: $SERVER, `)},

	{name: "an injected sidecar", control: "POD-01", mutation: `[JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{name: "mesh", image: "$IMAGE", command: ["/toolbox", "serve", ":7001"]}}]`},
	{name: "an injected init container", control: "POD-01", mutation: `[JSONPatch{op: "add", path: "/spec/initContainers/0", value: Object.spec.initContainers{name: "mesh", image: "$IMAGE", command: ["/toolbox", "pause", "0s"]}}]`},
	{name: "root", control: "POD-02", mutation: patched("/spec/containers/0/securityContext/runAsUser", "0")},
	{name: "the group of root", control: "POD-02", mutation: patched("/spec/containers/0/securityContext/runAsGroup", "0")},
	{name: "a writable root file system", control: "POD-03", mutation: patched("/spec/containers/0/securityContext/readOnlyRootFilesystem", "false")},
	{name: "a capability", control: "POD-04", mutation: patched("/spec/containers/0/securityContext/capabilities", `Object.spec.containers.securityContext.capabilities{add: ["NET_ADMIN"]}`)},
	{name: "privilege escalation", control: "POD-05", mutation: patched("/spec/containers/0/securityContext/allowPrivilegeEscalation", "true")},
	{name: "no filter of system calls", control: "POD-06", mutation: patched("/spec/containers/0/securityContext/seccompProfile", `Object.spec.containers.securityContext.seccompProfile{type: "Unconfined"}`)},
	{name: "a token of the account", control: "POD-07", mutation: patched("/spec/automountServiceAccountToken", "true")},
	{name: "links to every Service", control: "POD-08", mutation: patched("/spec/enableServiceLinks", "true")},
	{name: "a port of the node", control: "POD-09", mutation: patched("/spec/containers/0/ports/-", `Object.spec.containers.ports{name: "node", containerPort: 9999, hostPort: 39999}`)},
	{name: "a folder of the node", control: "POD-10", mutation: patched("/spec/volumes/-", `Object.spec.volumes{name: "host", hostPath: Object.spec.volumes.hostPath{path: "/tmp"}}`)},
	{name: "another Secret as a volume", control: "POD-10", mutation: patched("/spec/volumes/-", `Object.spec.volumes{name: "more", secret: Object.spec.volumes.secret{secretName: "more", optional: true}}`)},
	{name: "no limits", control: "POD-11", mutation: patched("/spec/containers/0/resources", `Object.spec.containers.resources{}`)},
	{name: "AppArmor switched off", control: "POD-12", mutation: patched("/spec/containers/0/securityContext/appArmorProfile", `Object.spec.containers.securityContext.appArmorProfile{type: "Unconfined"}`)},
	{name: "another program", control: "POD-18", mutation: patched("/spec/containers/0/args", `["-http", ":8081"]`)},
	{name: "another image at admission", control: "IMG-03", mutation: patched("/spec/containers/0/image", `"elsewhere.example/server:v1"`)},
	{name: "another Secret as variables", control: "SEC-08", mutation: patched("/spec/containers/0/envFrom", `[{"secretRef": {"name": "more"}}]`)},
	// What is the operator's own is put right before anybody can undo it; the verdict tells of it all the same.
	{name: "the server's NetworkPolicy opened", control: "NET-05", change: managed("NetworkPolicy", "networking.k8s.io/v1", "$SERVER", `{"spec": {"egress": [{}], "ingress": [{}]}}`)},
	{name: "the server's NetworkPolicy selects nothing", control: "NET-05", change: managed("NetworkPolicy", "networking.k8s.io/v1", "$SERVER", `{"spec": {"podSelector": {"matchLabels": {"mcpwarden.io/server": "other"}}}}`)},
	{name: "the server's NetworkPolicy deleted", control: "NET-05", change: managed("NetworkPolicy", "networking.k8s.io/v1", "$SERVER", "")},
	{name: "the namespace's NetworkPolicy opened", control: "NET-05", change: managed("NetworkPolicy", "networking.k8s.io/v1", plan.BaselineName, `{"spec": {"policyTypes": ["Ingress"]}}`)},
	{name: "the server's Service exposed", control: "OPS-05", change: managed("Service", "v1", "$SERVER", `{"spec": {"type": "NodePort"}}`)},
	{name: "the server's account with a token", control: "OPS-05", change: managed("ServiceAccount", "v1", "$SERVER", `{"automountServiceAccountToken": true}`)},
	{name: "the server's Deployment with another image", control: "OPS-05", change: managed("Deployment", "apps/v1", "$SERVER", `{"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "elsewhere.example/server:v1"}]}}}}`)},
	{name: "the server's Deployment with a sidecar", control: "OPS-05", change: managed("Deployment", "apps/v1", "$SERVER", `{"spec": {"template": {"spec": {"containers": [{"name": "mesh", "image": "$IMAGE"}]}}}}`)},
	{name: "the server's Deployment deleted", control: "OPS-05", change: managed("Deployment", "apps/v1", "$SERVER", "")},
	{name: "the snapshot forged", control: "SEC-06", change: forgeSnapshot},

	{name: "a second network", control: "NET-14", mutation: `[JSONPatch{op: "add", path: "/metadata/annotations", value: {"k8s.v1.cni.cncf.io/networks": "other"}}]`},
}

func policyYAML(spec string) string {
	return "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: extra, namespace: $NS}, spec: " + spec + "}"
}

func serviceYAML(more string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: extra, namespace: $NS}, spec: {selector: {mcpwarden.io/server: $SERVER}, ports: [{port: 80, targetPort: 8080}], " + more + "}}"
}

func ingressYAML(spec string) string {
	return "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: extra, namespace: $NS}, spec: {" + spec + "}}"
}

func bindingYAML(kind, role, subject string) string {
	metadata := "{name: extra-$NS, namespace: $NS}"
	if kind == "ClusterRoleBinding" {
		metadata = "{name: extra-$NS}"
	}
	return "{apiVersion: rbac.authorization.k8s.io/v1, kind: " + kind + ", metadata: " + metadata + ", roleRef: {apiGroup: rbac.authorization.k8s.io, " + role + "}, subjects: [" + subject + "]}"
}

func podYAML(metadata, spec string) string {
	return "{apiVersion: v1, kind: Pod, metadata: {name: extra, namespace: $NS, " + metadata + "}, spec: {" + spec +
		"terminationGracePeriodSeconds: 0, containers: [{name: c, image: $IMAGE, command: [/toolbox, serve, ':7001'], securityContext: {runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}}]}}"
}

func patched(path, value string) string {
	return fmt.Sprintf("[JSONPatch{op: %q, path: %q, value: %s}]", "add", path, value)
}

// TestTampering changes one thing after another around servers that run: each is refused or turns its control within
// ten seconds, and the verdict is back as soon after it was undone.
func TestTampering(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	newSecret(t, ns, "source", map[string]string{"token": secretly("tampered")})
	server := newServer(t, ns, "tampered", func(spec *v1alpha1.MCPServerSpec) {
		spec.Env = []v1alpha1.EnvVar{fromSecret("TOKEN", "source", "token")}
		allowAgents(spec)
	})
	s := &scene{server}
	for _, tc := range tampers {
		t.Run(tc.name, func(t *testing.T) {
			s.whole(t)
			if tc.mutation != "" {
				s.mutate(t, tc)
				return
			}
			undo, err := s.apply(t, tc)
			if isRefused(err) {
				t.Logf("refused: %v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s failed after %s: %s", tc.control, s.waitControl(t, tc.control, v1alpha1.ControlFail).Round(10*time.Millisecond), s.control(tc.control).Message)
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s passed again after %s", tc.control, s.waitControl(t, tc.control, v1alpha1.ControlPass).Round(10*time.Millisecond))
		})
	}
	s.whole(t)
}

// isRefused tells what admission refused from what could not be done for another reason.
func isRefused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
}

// whole waits until every control passes.
func (s *scene) whole(t *testing.T) {
	t.Helper()
	waitReason(t, s.server, v1alpha1.ReasonServing)
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(s.server), s.server); err != nil {
			return err
		}
		c := meta.FindStatusCondition(s.server.Status.Conditions, v1alpha1.ConditionPolicyCompliant)
		if compliance := s.server.Status.Compliance; compliance == nil || compliance.Failed+compliance.Unknown > 0 || c == nil || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("not every control passes: %+v", c)
		}
		return nil
	})
}

func (s *scene) control(id v1alpha1.ControlID) v1alpha1.ControlStatus {
	if s.server.Status.Compliance != nil {
		for _, c := range s.server.Status.Compliance.Controls {
			if c.ID == id {
				return c
			}
		}
	}
	return v1alpha1.ControlStatus{}
}

// waitControl waits until a control has a result, and returns how long that took.
func (s *scene) waitControl(t *testing.T, id v1alpha1.ControlID, want v1alpha1.ControlResult) time.Duration {
	t.Helper()
	begin := time.Now()
	within(t, verdictTime, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(s.server), s.server); err != nil {
			return err
		}
		if got := s.control(id); got.Result != want {
			return fmt.Errorf("%s is %q, want %s: %s", id, got.Result, want, got.Message)
		}
		return nil
	})
	return time.Since(begin)
}

// apply does what a case is about.
func (s *scene) apply(t *testing.T, tc tamper) (undo func() error, err error) {
	t.Helper()
	if tc.change != nil {
		return tc.change(t, s)
	}
	var made []client.Object
	for manifest := range strings.SplitSeq(s.fill(tc.objects), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
			t.Fatal(err)
		}
		if err := k8s.Create(t.Context(), object); err != nil {
			return nil, err
		}
		made = append(made, object)
		t.Cleanup(func() {
			if err := client.IgnoreNotFound(k8s.Delete(context.Background(), object)); err != nil {
				t.Error(err)
			}
		})
	}
	return func() error {
		for _, object := range made {
			if err := k8s.Delete(t.Context(), object, client.GracePeriodSeconds(0)); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// labelNamespace sets what a namespace enforces; nil takes the label away.
func labelNamespace(level *string) func(*testing.T, *scene) (func() error, error) {
	set := func(ctx context.Context, s *scene, value string) error {
		patch := `{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": ` + value + `}}}`
		return k8s.Patch(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.server.Namespace}}, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	return func(t *testing.T, s *scene) (func() error, error) {
		value := "null"
		if level != nil {
			value = `"` + *level + `"`
		}
		return func() error { return set(t.Context(), s, `"restricted"`) }, set(t.Context(), s, value)
	}
}

// addEphemeral adds a container to a live pod. Only a new pod is without it.
func addEphemeral(container string) func(*testing.T, *scene) (func() error, error) {
	return func(t *testing.T, s *scene) (func() error, error) {
		relax := labelNamespace(new("privileged"))
		restore, err := relax(t, s)
		if err != nil {
			return nil, err
		}
		pod := podOf(t, s.server)
		patch := s.fill(`{"spec": {"ephemeralContainers": [` + container + `]}}`)
		err = k8s.SubResource("ephemeralcontainers").Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType, []byte(patch)))
		if restoreErr := restore(); restoreErr != nil {
			t.Fatal(restoreErr)
		}
		return func() error {
			s.replacePods(t)
			return nil
		}, err
	}
}

// changePod changes a live pod. A stranger's pod that is left behind is removed by what undoes it.
func changePod(patch string, left bool) func(*testing.T, *scene) (func() error, error) {
	return func(t *testing.T, s *scene) (func() error, error) {
		pod := podOf(t, s.server)
		if err := k8s.Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType, []byte(patch))); err != nil {
			return nil, err
		}
		return func() error {
			if left {
				return k8s.Delete(t.Context(), pod, client.GracePeriodSeconds(0))
			}
			s.replacePods(t)
			return nil
		}, nil
	}
}

// managed changes an object of the operator's own by a patch, or deletes it where there is none. There is nothing to undo.
func managed(kind, version, name, patch string) func(*testing.T, *scene) (func() error, error) {
	return func(t *testing.T, s *scene) (func() error, error) {
		object := &unstructured.Unstructured{}
		object.SetAPIVersion(version)
		object.SetKind(kind)
		object.SetNamespace(s.server.Namespace)
		object.SetName(s.fill(name))
		if patch == "" {
			return func() error { return nil }, k8s.Delete(t.Context(), object)
		}
		return func() error { return nil }, k8s.Patch(t.Context(), object, client.RawPatch(types.StrategicMergePatchType, []byte(s.fill(patch))))
	}
}

// forgeSnapshot puts another Secret in the place of the one that the server's variables come from.
func forgeSnapshot(t *testing.T, s *scene) (func() error, error) {
	snapshots := &corev1.SecretList{}
	if err := k8s.List(t.Context(), snapshots, client.InNamespace(s.server.Namespace), client.MatchingLabels{"mcpwarden.io/server": s.server.Name}); err != nil {
		return nil, err
	}
	if len(snapshots.Items) != 1 {
		t.Fatalf("%d snapshots, want 1", len(snapshots.Items))
	}
	forged := snapshots.Items[0].DeepCopy()
	forged.ResourceVersion, forged.UID, forged.ManagedFields = "", "", nil
	forged.Data = map[string][]byte{"TOKEN": []byte("forged")}
	if err := k8s.Delete(t.Context(), &snapshots.Items[0]); err != nil {
		return nil, err
	}
	err := k8s.Create(t.Context(), forged)
	if apierrors.IsAlreadyExists(err) {
		err = nil // the operator was faster
	}
	return func() error { return nil }, err
}

// replacePods has the server's pods made anew, and waits until it serves with them alone.
func (s *scene) replacePods(t *testing.T) {
	t.Helper()
	old := map[types.UID]bool{}
	for _, pod := range podsOf(t, s.server) {
		old[pod.UID] = true
		if err := client.IgnoreNotFound(k8s.Delete(t.Context(), &pod, client.GracePeriodSeconds(1))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func(ctx context.Context) error {
		pods := &corev1.PodList{}
		if err := k8s.List(ctx, pods, client.InNamespace(s.server.Namespace), client.MatchingLabels{"mcpwarden.io/server": s.server.Name}); err != nil {
			return err
		}
		fresh := 0
		for i := range pods.Items {
			if old[pods.Items[i].UID] {
				return fmt.Errorf("pod %s is still there", pods.Items[i].Name)
			}
			fresh++
		}
		if fresh == 0 {
			return fmt.Errorf("no pod was made anew")
		}
		return nil
	})
}

// mutate has every pod of the server changed at admission, replaces its pods, and takes the change back.
func (s *scene) mutate(t *testing.T, tc tamper) {
	t.Helper()
	relax := labelNamespace(new("privileged"))
	restore, err := relax(t, s)
	if err != nil {
		t.Fatal(err)
	}
	like := podOf(t, s.server)
	clean, err := s.asked(t.Context(), like)
	if err != nil {
		t.Fatal(err)
	}
	name := "tamper-" + s.server.Namespace
	undo, err := s.apply(t, tamper{objects: mutationYAML(name, tc.mutation)})
	if err != nil {
		t.Fatal(err)
	}
	s.waitMutation(t, like, clean, true)
	s.replacePods(t)
	t.Logf("%s failed after %s: %s", tc.control, s.waitControl(t, tc.control, v1alpha1.ControlFail).Round(10*time.Millisecond), s.control(tc.control).Message)
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	s.waitMutation(t, like, clean, false)
	s.replacePods(t)
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	waitReason(t, s.server, v1alpha1.ReasonServing)
	t.Logf("%s passed again after %s", tc.control, s.waitControl(t, tc.control, v1alpha1.ControlPass).Round(10*time.Millisecond))
}

func mutationYAML(name, expression string) string {
	quoted, err := yaml.Marshal(expression)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: %[2]s
---
{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, metadata: {name: %[1]s}, spec: {policyName: %[1]s}}`,
		name, strings.TrimSpace(string(quoted)))
}

// asked is what the API server would make of a pod like one of the server's: a dry run tells.
func (s *scene) asked(ctx context.Context, like *corev1.Pod) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "ask", Namespace: s.server.Namespace}, Spec: *like.Spec.DeepCopy()}
	pod.Spec.NodeName, pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "", "default", "default"
	return pod, k8s.Create(ctx, pod, client.DryRunAll)
}

// waitMutation waits until the API server changes pods, or does so no more.
func (s *scene) waitMutation(t *testing.T, like, clean *corev1.Pod, mutated bool) {
	t.Helper()
	within(t, 30*time.Second, func(ctx context.Context) error {
		pod, err := s.asked(ctx, like)
		if err != nil {
			return err
		}
		same := equality.Semantic.DeepEqual(pod.Spec, clean.Spec) && equality.Semantic.DeepEqual(pod.Annotations, clean.Annotations)
		if same == mutated {
			return fmt.Errorf("pods are changed at admission: %t, want %t", !same, mutated)
		}
		return nil
	})
}
