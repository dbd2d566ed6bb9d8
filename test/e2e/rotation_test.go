//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// caller is a pod that calls servers over and over: each once a second, or twenty of them where there are more.
type caller struct{ pod *corev1.Pod }

// tally is what came of the calls.
type tally struct {
	Servers, Calls, Least, Failures int
	Said                            []string
	SlowestMillis                   int64
}

// newCaller starts to call servers and waits until each has answered.
func newCaller(t *testing.T, servers ...*v1alpha1.MCPServer) *caller {
	t.Helper()
	pause := max(time.Second, time.Duration(len(servers))*time.Second/20)
	command := []string{"/mcpclient", "-loop", "127.0.0.1:7001", "-timeout", "60s", "-pause", pause.String()}
	for _, server := range servers {
		command = append(command, endpointOf(server))
	}
	c := &caller{newPod(t, servers[0].Namespace, "caller", map[string]string{"role": "agent"}, command...)}
	eventually(t, func(context.Context) error {
		if got := c.tally(t).Servers; got != len(servers) {
			return fmt.Errorf("%d of %d servers have answered", got, len(servers))
		}
		return nil
	})
	return c
}

func (c *caller) tally(t *testing.T) tally {
	t.Helper()
	said := succeeds(t, c.pod, "get", "http://127.0.0.1:7001/")
	_, body, _ := strings.Cut(said, "{")
	var out tally
	if err := json.Unmarshal([]byte("{"+body), &out); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return out
}

// sawNoFailure asserts that every call was answered, up to one more of each server.
func (c *caller) sawNoFailure(t *testing.T) {
	t.Helper()
	enough := c.tally(t).Least + 1
	var got tally
	eventually(t, func(context.Context) error {
		if got = c.tally(t); got.Least < enough {
			return fmt.Errorf("a server was called %d times, want %d", got.Least, enough)
		}
		return nil
	})
	if got.Failures > 0 {
		t.Errorf("%d of %d calls failed: %s", got.Failures, got.Calls, strings.Join(got.Said, "\n"))
	}
	t.Logf("%d servers: %d calls, at least %d of each, %d failed, the slowest took %d ms", got.Servers, got.Calls, got.Least, got.Failures, got.SlowestMillis)
}

// rotations is what was seen of the rotations in a namespace.
type rotations struct {
	mu       sync.Mutex
	inFlight map[string]bool
	most     int
	versions map[string][]string // snapshots by server, in their order
	down     []string            // servers that had too few available pods at a moment
}

// watchRotations watches all Deployments of a namespace from now on.
func watchRotations(t *testing.T, namespace string) *rotations {
	t.Helper()
	out := &rotations{inFlight: map[string]bool{}, versions: map[string][]string{}}
	w, err := k8s.Watch(t.Context(), &appsv1.DeploymentList{}, client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	go func() {
		for event := range w.ResultChan() {
			if deployment, ok := event.Object.(*appsv1.Deployment); ok {
				out.see(t, deployment)
			}
		}
	}()
	return out
}

func (r *rotations) see(t *testing.T, deployment *appsv1.Deployment) {
	state, err := rotation.Decode(deployment.Annotations[plan.AnnotationRotation])
	if err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name, version := deployment.Name, deployment.Spec.Template.Labels[plan.LabelSnapshot]
	delete(r.inFlight, name)
	have, want := deployment.Status, *deployment.Spec.Replicas
	complete := have.ObservedGeneration >= deployment.Generation && have.UpdatedReplicas == want && have.Replicas == want && have.AvailableReplicas == want
	if state.Good != nil && state.Good.Digest != state.Deployed.Digest && !complete {
		r.inFlight[name] = true
	}
	r.most = max(r.most, len(r.inFlight))
	if deployment.Status.AvailableReplicas < *deployment.Spec.Replicas {
		r.down = append(r.down, name)
	}
	if seen := r.versions[name]; len(seen) == 0 || seen[len(seen)-1] != version {
		r.versions[name] = append(seen, version)
	}
}

// of lists the versions that a server has had, in their order.
func (r *rotations) of(server *v1alpha1.MCPServer) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.versions[server.Name])
}

// atRest waits until nothing is left of a rollout, and returns the Deployment.
func atRest(t *testing.T, server *v1alpha1.MCPServer) *appsv1.Deployment {
	t.Helper()
	var out *appsv1.Deployment
	eventually(t, func(ctx context.Context) error {
		pods := &corev1.PodList{}
		if err := k8s.List(ctx, pods, client.InNamespace(server.Namespace), client.MatchingLabels{plan.LabelServer: server.Name}); err != nil {
			return err
		}
		out = deploymentOf(t, server)
		state := stateOf(t, out)
		if len(pods.Items) != int(*out.Spec.Replicas) || out.Status.AvailableReplicas != *out.Spec.Replicas || out.Status.ObservedGeneration != out.Generation ||
			state.Good == nil || state.Good.Digest != state.Deployed.Digest || out.Status.TerminatingReplicas != nil && *out.Status.TerminatingReplicas > 0 {
			return fmt.Errorf("%d pods of %s, state %s, status %+v", len(pods.Items), server.Name, state.Encode(), out.Status)
		}
		return nil
	})
	return out
}

// TestOnlyWhatNamesAChangedKeyRolls changes a Secret that three servers name, in every way.
func TestOnlyWhatNamesAChangedKeyRolls(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	secret := newSecret(t, ns, "shared", map[string]string{"a": secretly("a1"), "b": secretly("b1"), "c": secretly("c1")})
	one := newServer(t, ns, "one", looksAt(fromSecret("TOKEN", "shared", "a")))
	two := newServer(t, ns, "two", looksAt(fromSecret("TOKEN", "shared", "a")))
	other := newServer(t, ns, "other", looksAt(fromSecret("TOKEN", "shared", "b")))
	for _, server := range []*v1alpha1.MCPServer{one, two, other} {
		waitReason(t, server, v1alpha1.ReasonServing)
		waitSecrets(t, server, v1alpha1.ReasonCurrent)
	}
	if deployed(one) != deployed(two) || deployed(one) == deployed(other) || deployed(one) == "" {
		t.Errorf("servers with the same values have digests %s and %s, one with others %s", deployed(one), deployed(two), deployed(other))
	}
	seen := watchRotations(t, ns)
	first, still := deployed(one), atRest(t, other)

	value := secretly("a2")
	write(t, secret, "a", value)
	rolledOnce := func(server *v1alpha1.MCPServer) *appsv1.Deployment {
		t.Helper()
		deployment := atRest(t, server)
		if got := revisionOf(deployment); got != "2" || len(replicaSetsOf(t, server)) != 2 || len(seen.of(server)) != 2 {
			t.Errorf("%s was rolled to revision %s with %d ReplicaSets: want one roll, saw %v", server.Name, got, len(replicaSetsOf(t, server)), seen.of(server))
		}
		return deployment
	}
	var rested []*appsv1.Deployment
	for _, server := range []*v1alpha1.MCPServer{one, two} {
		waitRolled(t, server, first)
	}
	for _, server := range []*v1alpha1.MCPServer{one, two} {
		rested = append(rested, rolledOnce(server))
		same(t, "the variable of "+server.Name, variable(t, podOf(t, server), "TOKEN"), value)
	}
	if got := deploymentOf(t, other); got.ResourceVersion != still.ResourceVersion {
		t.Error("the Deployment of a server that does not name the changed key was written")
	}

	// What changes no value that the first two name; the last of it rolls the third, so that all was seen.
	edit(t, secret, func(s *corev1.Secret) {
		s.Labels, s.Annotations = map[string]string{"team": "x"}, map[string]string{"synced": "now"}
	})
	edit(t, secret, func(s *corev1.Secret) { s.Data["c"], s.Data["d"] = []byte(secretly("c2")), []byte(secretly("d1")) })
	again := secret.DeepCopy()
	if err := k8s.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	again.ResourceVersion, again.UID = "", ""
	if err := k8s.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	before := stateOf(t, still).Deployed.Digest
	write(t, again, "b", secretly("b2"))
	waitRolled(t, other, before)
	rolledOnce(other)
	for i, server := range []*v1alpha1.MCPServer{one, two} {
		waitSecrets(t, server, v1alpha1.ReasonCurrent)
		if got := deploymentOf(t, server); got.ResourceVersion != rested[i].ResourceVersion {
			t.Errorf("the Deployment of %s was written though no value of it changed", server.Name)
		}
	}
}

// TestABadCredentialIsRolledBack gives a server a credential that it refuses.
func TestABadCredentialIsRolledBack(t *testing.T) {
	t.Parallel()
	for name, hint := range map[string]string{"exits": "bad-exit", "never listens": "bad-hang"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			first, bad := secretly("first"), secretly(hint)
			secret := newSecret(t, ns, "shared", map[string]string{"token": first, "witness": secretly("w1")})
			server := newServer(t, ns, "picky", func(s *v1alpha1.MCPServerSpec) {
				looksAt(fromSecret("TOKEN", "shared", "token"))(s)
				if hint == "bad-hang" { // one that ends is known by that
					s.Rotation.ProgressDeadlineSeconds = new(int32(45))
				}
			})
			witness := newServer(t, ns, "witness", looksAt(fromSecret("TOKEN", "shared", "witness")))
			waitReason(t, server, v1alpha1.ReasonServing)
			waitReason(t, witness, v1alpha1.ReasonServing)
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			old, good := podOf(t, server), deployed(server)
			calls := newCaller(t, server)

			rolledBack := func(generation int64) {
				t.Helper()
				message := waitSecrets(t, server, v1alpha1.ReasonRotationRolledBack).Message
				says(t, message, v1alpha1.AnnotationRotateRequestedAt)
				deployment := atRest(t, server)
				if state := stateOf(t, deployment); state.Deployed.Digest != good || len(state.Failed) != 1 || deployment.Generation != generation {
					t.Errorf("want the good version again, at generation %d: %s at %d", generation, state.Encode(), deployment.Generation)
				}
				if pod := podOf(t, server); pod.UID != old.UID {
					t.Error("the pod that served was replaced")
				}
				waitReason(t, server, v1alpha1.ReasonServing)
				t.Log(message)
			}
			// operatorSaw makes sure that the operator has seen the Secret as it is: another server has rolled since.
			operatorSaw := func() {
				t.Helper()
				before := stateOf(t, deploymentOf(t, witness)).Deployed.Digest
				write(t, secret, "witness", secretly("w"))
				waitRolled(t, witness, before)
			}
			generation := deploymentOf(t, server).Generation
			write(t, secret, "token", bad)
			rolledBack(generation + 2)

			operatorSaw()
			rolledBack(generation + 2) // and not tried again

			write(t, secret, "token", first) // the old value is what runs
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			write(t, secret, "token", bad)
			waitSecrets(t, server, v1alpha1.ReasonRotationRolledBack)
			operatorSaw()
			rolledBack(generation + 2)

			request(t, server)
			eventually(t, func(context.Context) error {
				if got := deploymentOf(t, server).Generation; got < generation+3 {
					return fmt.Errorf("what failed is not tried again when asked: generation %d", got)
				}
				return nil
			})
			rolledBack(generation + 4)

			value := secretly("second")
			write(t, secret, "token", value)
			waitRolled(t, server, good)
			same(t, "the variable", variable(t, podOf(t, server), "TOKEN"), value)
			waitReason(t, server, v1alpha1.ReasonServing)
			atRest(t, server)
			calls.sawNoFailure(t)
		})
	}
}

// TestPodsNeverMixValues starts pods in the middle of a rotation whose two values come from two Secrets.
func TestPodsNeverMixValues(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	pairs := map[string][2]string{}
	pair := func(version, hint string) [2]string {
		pairs[version] = [2]string{secretly(hint), secretly(version)}
		return pairs[version]
	}
	v1 := pair("v1", "user1")
	user := newSecret(t, ns, "user", map[string]string{"name": v1[0]})
	password := newSecret(t, ns, "password", map[string]string{"value": v1[1]})
	server := newServer(t, ns, "matched", func(s *v1alpha1.MCPServerSpec) {
		looksAt(fromSecret("TOKEN", "user", "name"), fromSecret("PASSWORD", "password", "value"))(s)
		s.Replicas = new(int32(2))
		s.Rotation.Debounce = new(metav1.Duration{Duration: 20 * time.Second}) // longer than both writes take on a busy machine
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	oldLabel := deploymentOf(t, server).Spec.Template.Labels[plan.LabelSnapshot]
	seen := watchRotations(t, ns)
	change := func(values [2]string) {
		write(t, user, "name", values[0])
		waitSecrets(t, server, v1alpha1.ReasonRotationPending) // the operator has seen the half of it
		write(t, password, "value", values[1])
	}
	matches := func(pod *corev1.Pod, want [2]string) {
		t.Helper()
		same(t, "TOKEN of "+pod.Name, variable(t, pod, "TOKEN"), want[0])
		same(t, "PASSWORD of "+pod.Name, variable(t, pod, "PASSWORD"), want[1])
	}

	v2 := pair("v2", "bad-hang")
	change(v2)
	midway := startedPod(t, server, func(p *corev1.Pod) bool { return p.Labels[plan.LabelSnapshot] != oldLabel })
	matches(midway, v2)

	// One of the old pods, and then the new one, are deleted: what takes their places is like them.
	var old *corev1.Pod
	known := map[string]bool{}
	for _, pod := range podsOf(t, server) {
		if known[string(pod.UID)] = true; pod.Labels[plan.LabelSnapshot] == oldLabel {
			old = &pod
		}
	}
	for _, pod := range []*corev1.Pod{old, midway} {
		if err := k8s.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	isNew := func(label string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			return !known[string(p.UID)] && (p.Labels[plan.LabelSnapshot] == oldLabel) == (label == oldLabel)
		}
	}
	matches(startedPod(t, server, isNew(oldLabel)), v1)
	matches(startedPod(t, server, isNew("")), v2)

	v3 := pair("v3", "user3")
	change(v3)
	waitRolled(t, server, stateOf(t, deploymentOf(t, server)).Deployed.Digest)
	atRest(t, server)
	for _, pod := range podsOf(t, server) {
		matches(&pod, v3)
	}
	if versions := seen.of(server); len(versions) != 3 {
		t.Errorf("want three versions, each of values that belong together: %v", versions)
	}
}

// startedPod waits for a pod of a server whose process runs.
func startedPod(t *testing.T, server *v1alpha1.MCPServer, fits func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var out *corev1.Pod
	eventually(t, func(context.Context) error {
		for _, pod := range podsOf(t, server) {
			if status := pod.Status.ContainerStatuses; fits(&pod) && len(status) > 0 && status[0].State.Running != nil {
				out = &pod
				return nil
			}
		}
		return fmt.Errorf("no such pod of %s is there", server.Name)
	})
	return out
}
