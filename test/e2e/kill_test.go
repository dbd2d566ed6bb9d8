//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// TestKilledOperators kills operators in the middle of rotations. Each looks at a namespace of its own,
// while the one of the cluster is away; so it is not parallel with what needs that one.
func TestKilledOperators(t *testing.T) {
	scaleOperator(t, 0)
	t.Cleanup(func() { scaleOperator(t, 2) })
	t.Run("at every step", func(t *testing.T) {
		t.Parallel()
		killAtEveryStep(t)
	})
	t.Run("at any moment", func(t *testing.T) {
		t.Parallel()
		killAtAnyMoment(t)
	})
}

// scaleOperator changes how many pods the operator of the cluster has.
func scaleOperator(t *testing.T, replicas int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "mcp-warden", Namespace: operatorNamespace}}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))
	if err := k8s.Patch(ctx, deployment, patch); err != nil {
		t.Fatal(err)
	}
	pods := &corev1.PodList{}
	for {
		if err := errors.Join(k8s.Get(ctx, client.ObjectKeyFromObject(deployment), deployment),
			k8s.List(ctx, pods, client.InNamespace(operatorNamespace), client.MatchingLabels{"app.kubernetes.io/name": "mcp-warden"})); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) == int(replicas) && deployment.Status.AvailableReplicas == replicas {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// A point is a write of an operator at which it dies.
type point struct {
	phase, write string
	// nth of the writes of this kind in the phase, from 1.
	nth int
}

// points are the writes of a rotation, each of which is the last of an operator: once before it is sent, and
// once after it was carried out, with its answer never seen.
var points = []point{
	{"start", "digest key", 1},
	{"start", "snapshot", 1},
	{"start", "files", 1},
	{"start", "deployment", 1}, // with its first state
	{"start", "deployment", 2}, // the first version is good
	{"start", "status", 1},
	{"roll", "snapshot", 1},
	{"roll", "deployment", 1}, // the new version is deployed
	{"roll", "status", 1},
	{"roll", "event", 1},
	{"roll", "deployment", 2}, // and is good
	{"roll", "files", 1},
	{"roll", "nudge", 1},
	{"bad", "snapshot", 1},
	{"bad", "deployment", 1},
	{"bad", "deployment", 2}, // back to the good version
	{"bad", "event", 2},
	{"again", "deployment", 1},
	{"again", "collected", 1},
	{"again", "deployment", 2},
}

// scenario is what is done until a phase has passed.
var scenario = []string{"start", "roll", "bad", "again"}

func killAtEveryStep(t *testing.T) {
	t.Run("undisturbed", func(t *testing.T) {
		t.Parallel()
		live(t, &mortal{}, scenario)
	})
	for _, p := range points {
		for when, after := range map[string]bool{"before": false, "after": true} {
			t.Run(fmt.Sprintf("%s the %s %d of %s", when, p.write, p.nth, p.phase), func(t *testing.T) {
				t.Parallel()
				m := &mortal{at: p, after: after}
				live(t, m, scenario[:max(2, slices.Index(scenario, p.phase)+1)])
			})
		}
	}
}

// mortal stands between an operator and the API server until the operator dies at a write.
type mortal struct {
	at    point
	after bool

	mu     sync.Mutex
	phase  string
	dead   bool
	died   chan struct{}
	count  map[point]int
	writes []string
}

var errDead = errors.New("the operator is dead")

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// isDue returns an error while the operator has not died.
func (m *mortal) isDue() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil
	}
	return fmt.Errorf("the operator did not get to the point: %v", m.writes)
}

func (m *mortal) enter(phase string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = phase
}

func (m *mortal) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		switch dead, here := m.pass(r); {
		case dead, here && !m.after:
			return nil, errDead
		case here:
			response, err := next.RoundTrip(r)
			if err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
			return nil, errDead
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pass says whether the operator was dead before, and whether it dies with this request.
func (m *mortal) pass(r *http.Request) (dead, here bool) {
	write := writeOf(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead || write == "" {
		return m.dead, false
	}
	m.writes = append(m.writes, m.phase+": "+write)
	if m.count == nil {
		m.count = map[point]int{}
	}
	m.count[point{m.phase, write, 0}]++
	if write == m.at.write && m.phase == m.at.phase && m.count[point{m.phase, write, 0}] == m.at.nth {
		m.dead = true
		close(m.died)
		return false, true
	}
	return false, false
}

// writeOf names what a request writes; empty where it writes nothing that rotations are made of.
func writeOf(r *http.Request) string {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	i := slices.Index(path, "namespaces")
	if r.Method == http.MethodGet || i < 0 || len(path) < i+3 {
		return ""
	}
	name := strings.Join(path[i+3:], "/")
	switch resource := path[i+2]; {
	case resource == "secrets" && r.Method == http.MethodPost:
		return "digest key"
	case resource == "secrets" && r.Method == http.MethodDelete:
		return "collected"
	case resource == "secrets" && strings.Contains(name, "-env-"):
		return "snapshot"
	case resource == "secrets" && strings.Contains(name, "-file-"):
		return "files"
	case resource == "deployments":
		return "deployment"
	case resource == "mcpservers":
		return "status"
	case resource == "pods":
		return "nudge"
	case resource == "events":
		return "event"
	default:
		return ""
	}
}

// start starts an operator in this process that looks at one namespace, where it also keeps its key.
func start(t *testing.T, namespace string, m *mortal) (stop func()) {
	t.Helper()
	c := rest.CopyConfig(restConfig)
	c.Wrap(m.wrap)
	mgr, err := controllers.NewManager(c, controllers.Options{
		Manager: ctrl.Options{
			Metrics:    metricsserver.Options{BindAddress: "0"},
			Controller: config.Controller{SkipNameValidation: new(true)},
			Logger:     heard.logger(),
		},
		ClusterDNS: types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"},
		Namespaces: []string{namespace}, Namespace: namespace, Workers: 4,
	})
	if err != nil {
		if !m.isDead() {
			t.Errorf("start operator: %v", err)
		}
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && !m.isDead() {
			t.Errorf("stop operator: %v", err)
		}
	}
}

// live takes a server through phases while its operator dies once, and another one goes on. What comes
// of it is the same whether, and where, that happened.
func live(t *testing.T, m *mortal, phases []string) {
	ns := newNamespace(t)
	m.died = make(chan struct{})
	m.enter(phases[0])
	stop := start(t, ns, m)
	succeeded := make(chan func(), 1)
	go func() {
		select {
		case <-m.died:
			stop()
			succeeded <- start(t, ns, &mortal{died: make(chan struct{})})
		case <-t.Context().Done():
			succeeded <- stop
		}
	}()
	t.Cleanup(func() { (<-succeeded)() })

	l := &life{t: t, m: m, ns: ns, versions: map[string]string{}}
	for _, phase := range phases {
		m.enter(phase)
		l.pass(phase)
	}
	if m.at != (point{}) { // an event may come a little after the status that ends a phase
		eventually(t, func(context.Context) error { return m.isDue() })
	}
	m.enter("after the last phase")
	l.check(phases)
}

// life is what happens to one server.
type life struct {
	t        *testing.T
	m        *mortal
	ns       string
	server   *v1alpha1.MCPServer
	secret   *corev1.Secret
	versions map[string]string // phases by the values that they wrote
}

// value makes up the credential of a phase.
func (l *life) value(phase, hint string) string {
	value := secretly(hint)
	l.versions[value] = phase
	return value
}

func (l *life) pass(phase string) {
	l.t.Helper()
	switch phase {
	case "start":
		l.secret = newSecret(l.t, l.ns, "source", map[string]string{"token": l.value(phase, "start"), "file": secretly("file")})
		l.server = newServer(l.t, l.ns, "server", func(s *v1alpha1.MCPServerSpec) {
			looksAt(fromSecret("TOKEN", "source", "token"))(s)
			s.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets", SecretRef: v1alpha1.SecretKeys{Name: "source", Keys: []v1alpha1.DataKey{"file"}}}}
		})
		l.settled(phase)
	case "roll", "again":
		value := l.value(phase, phase)
		edit(l.t, l.secret, func(s *corev1.Secret) { s.Data["token"], s.Data["file"] = []byte(value), []byte(secretly(phase)) })
		l.settled(phase)
	case "bad":
		write(l.t, l.secret, "token", l.value(phase, "bad-exit"))
		waitSecrets(l.t, l.server, v1alpha1.ReasonRotationRolledBack)
	}
}

// settled waits until the values of a phase are deployed and good.
func (l *life) settled(phase string) {
	l.t.Helper()
	eventually(l.t, func(ctx context.Context) error {
		deployment := &appsv1.Deployment{}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(l.server), deployment); err != nil {
			return err
		}
		state, err := rotation.Decode(deployment.Annotations[plan.AnnotationRotation])
		if err != nil {
			return err
		}
		if state.Good == nil || state.Good.Digest != state.Deployed.Digest || l.phaseOf(state.Deployed.Snapshot) != phase {
			return fmt.Errorf("the values of phase %s are not good: %s", phase, state.Encode())
		}
		return nil
	})
	waitSecrets(l.t, l.server, v1alpha1.ReasonCurrent)
	waitReason(l.t, l.server, v1alpha1.ReasonServing)
}

// phaseOf finds out when the values of a snapshot were written.
func (l *life) phaseOf(name string) string {
	snapshot := &corev1.Secret{}
	if err := k8s.Get(l.t.Context(), client.ObjectKey{Namespace: l.ns, Name: name}, snapshot); err != nil {
		return fmt.Sprintf("%s: %v", name, err)
	}
	return cmp.Or(l.versions[string(snapshot.Data["TOKEN"])], "no phase")
}

// check compares how it ended with how it must end.
func (l *life) check(phases []string) {
	l.t.Helper()
	last := len(phases) - 1
	good := phases[last]
	// Each phase is one version; the bad one was left again, which is one more change of the template.
	templates := len(phases)
	var failed []string
	if i := slices.Index(phases, "bad"); i >= 0 {
		templates++
		failed = phases[i : i+1]
		if i == last {
			good = phases[last-1]
		}
	}
	kept := slices.Clone(phases[max(0, len(phases)-3):])
	slices.Sort(kept)

	deployment := atRest(l.t, l.server)
	state := stateOf(l.t, deployment)
	if revisionOf(deployment) != fmt.Sprint(templates) {
		l.t.Errorf("the template was changed to revision %s, want %d: %v", revisionOf(deployment), templates, l.m.writes)
	}
	if got := l.phaseOf(state.Deployed.Snapshot); got != good || state.Good.Snapshot != state.Deployed.Snapshot {
		l.t.Errorf("the values of phase %s are deployed, want %s: %s", got, good, state.Encode())
	}
	if len(state.Failed) != len(failed) || len(state.Started) != len(phases)-1 {
		l.t.Errorf("%d failed and %d started, want %v and %d: %s", len(state.Failed), len(state.Started), failed, len(phases)-1, state.Encode())
	}
	sets := map[string]int{}
	for _, set := range replicaSetsOf(l.t, l.server) {
		sets[l.phaseOf(plan.SnapshotName(l.server.Name, set.Labels[plan.LabelSnapshot]))]++
	}
	if got := slices.Sorted(maps.Keys(sets)); !slices.Equal(got, kept) || len(replicaSetsOf(l.t, l.server)) != len(kept) {
		l.t.Errorf("ReplicaSets of %v are there, want one of each of %v", sets, kept)
	}
	l.checkSecrets(kept)
	if pod := podOf(l.t, l.server); l.versions[variable(l.t, pod, "TOKEN")] != good {
		l.t.Errorf("the pod has the values of another phase than %s", good)
	}
}

// checkSecrets finds every Secret that should be there, and no other.
func (l *life) checkSecrets(kept []string) {
	l.t.Helper()
	secrets := &corev1.SecretList{}
	var snapshots, others []string
	eventually(l.t, func(ctx context.Context) error {
		if err := k8s.List(ctx, secrets, client.InNamespace(l.ns)); err != nil {
			return err
		}
		snapshots, others = nil, nil
		for i := range secrets.Items {
			switch s := &secrets.Items[i]; {
			case s.Labels[plan.LabelSnapshot] != "":
				snapshots = append(snapshots, cmp.Or(l.versions[string(s.Data["TOKEN"])], "no phase"))
			case s.Labels[plan.LabelFiles] != "":
				others = append(others, "files")
				same(l.t, "the copy of the file", string(s.Data["file"]), string(l.secret.Data["file"]))
			default:
				others = append(others, s.Name)
			}
		}
		slices.Sort(snapshots)
		slices.Sort(others)
		if want := []string{"files", "mcp-warden-digest-key", "source"}; !slices.Equal(snapshots, kept) || !slices.Equal(others, want) {
			return fmt.Errorf("snapshots of %v and Secrets %v are there, want %v and %v", snapshots, others, kept, want)
		}
		return nil
	})
	for _, e := range eventsIn(l.t, l.ns) {
		if e.Reason == "Failed" && strings.Contains(e.Message, "secret") {
			l.t.Errorf("a pod did not find its values: %s", e.Message)
		}
	}
}

func eventsIn(t *testing.T, namespace string) []corev1.Event {
	t.Helper()
	events := &corev1.EventList{}
	if err := k8s.List(t.Context(), events, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	return events.Items
}

// killAtAnyMoment kills the operator's own program, again and again, while values change.
func killAtAnyMoment(t *testing.T) {
	const kills, changes, count = 100, 10, 4 // a server has a budget of twelve rotations
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ns := newNamespace(t)
	values := []string{secretly("k0")}
	secret := newSecret(t, ns, "shared", map[string]string{"token": values[0], "file": secretly("f0")})
	var servers []*v1alpha1.MCPServer
	for i := range count {
		servers = append(servers, newServer(t, ns, fmt.Sprintf("server-%d", i), func(s *v1alpha1.MCPServerSpec) {
			looksAt(fromSecret("TOKEN", "shared", "token"))(s)
			s.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets", SecretRef: v1alpha1.SecretKeys{Name: "shared", Keys: []v1alpha1.DataKey{"file"}}}}
		}))
	}
	seen := watchRotations(t, ns)
	begin := time.Now()
	worked := 0
	for kill := range kills {
		if kill%(kills/changes) == kills/changes-1 {
			values = append(values, secretly(fmt.Sprintf("k%d", len(values))))
			edit(t, secret, func(s *corev1.Secret) {
				s.Data["token"], s.Data["file"] = []byte(values[len(values)-1]), []byte(secretly("f"))
			})
		}
		o := run(t, ns, "0")
		if random.IntN(5) > 0 { // most get as far as to work
			select {
			case <-o.works:
				worked++
			case <-time.After(deadline):
				t.Fatal("the operator does not get to work")
			}
		}
		time.Sleep(time.Duration(random.Int64N(int64(900 * time.Millisecond))))
		o.kill(t)
	}
	t.Logf("%d kills in %s, %d of an operator at work; %d versions", kills, time.Since(begin).Round(time.Second), worked, len(values))

	address := freeAddress(t)
	o := run(t, ns, address)
	t.Cleanup(func() { o.kill(t) })
	last := values[len(values)-1]
	for _, server := range servers {
		eventually(t, func(ctx context.Context) error {
			return errors.Join(hasReason(ctx, server, v1alpha1.ReasonServing), hasLast(ctx, server, last))
		})
	}
	order := map[string]int{} // of the versions, by label
	for _, server := range servers {
		atRest(t, server)
		waitSecrets(t, server, v1alpha1.ReasonCurrent)
		same(t, "TOKEN of "+server.Name, variable(t, podOf(t, server), "TOKEN"), last)
		for _, snapshot := range snapshotsOf(t, server) {
			order[snapshot.Labels[plan.LabelSnapshot]] = slices.Index(values, string(snapshot.Data["TOKEN"]))
		}
		versions := seen.of(server)
		if distinct := slices.Compact(slices.Sorted(slices.Values(versions))); len(distinct) != len(versions) {
			t.Errorf("%s was rolled to a version twice: %v", server.Name, versions)
		}
		if got := revisionOf(deploymentOf(t, server)); got != fmt.Sprint(len(versions)) {
			t.Errorf("%s has revision %s after the versions %v", server.Name, got, versions)
		}
		onlySnapshotsInUse(t, server)
		same(t, "the file of "+server.Name, file(t, podOf(t, server), "/run/secrets/file"), string(secret.Data["file"]))
		t.Logf("%s had %d of the %d versions, in their order", server.Name, len(versions), len(values))
	}
	for _, e := range eventsIn(t, ns) {
		if e.Reason == "Failed" && strings.Contains(e.Message, "secret") {
			t.Errorf("a pod did not find its values: %s", e.Message)
		}
	}
	heard.add(saidInMetrics, scrape(t, ns, address))
}

// scrape gets the metrics of an operator on this machine, under an account of a namespace that may.
func scrape(t *testing.T, namespace, address string) []byte {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "scraper"}}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-scraper"},
		Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}}}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: account.Name}}}
	for _, o := range []client.Object{account, role, binding} {
		if err := k8s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, o := range []client.Object{binding, role} {
			if err := k8s.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		}
	})
	token := &authenticationv1.TokenRequest{}
	if err := k8s.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Status.Token)
	// The operator signed its certificate itself, and this is its own machine.
	https := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := https.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(raw, []byte("controller_runtime_reconcile_total")) {
		t.Fatalf("no metrics: %s, %v", resp.Status, err)
	}
	return raw
}

// hasLast tells whether a server's snapshot in use holds a value.
func hasLast(ctx context.Context, server *v1alpha1.MCPServer, value string) error {
	deployment, snapshot := &appsv1.Deployment{}, &corev1.Secret{}
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), deployment); err != nil {
		return err
	}
	name := plan.SnapshotName(server.Name, deployment.Spec.Template.Labels[plan.LabelSnapshot])
	if err := k8s.Get(ctx, client.ObjectKey{Namespace: server.Namespace, Name: name}, snapshot); err != nil {
		return err
	}
	if string(snapshot.Data["TOKEN"]) != value {
		return fmt.Errorf("%s does not have the last value", server.Name)
	}
	return nil
}

// process is the operator's own program.
type process struct {
	cmd *exec.Cmd
	// works is closed once it has started to reconcile.
	works chan struct{}
	ended chan struct{}
}

// run starts the operator's program on this machine, for one namespace.
func run(t *testing.T, namespace, metrics string) *process {
	t.Helper()
	p := &process{works: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = exec.Command(os.Getenv("E2E_MANAGER"), "--namespaces="+namespace, "--operator-namespace="+namespace,
		"--health-probe-bind-address=0", "--metrics-bind-address="+metrics, "--zap-log-level=7")
	said, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		working := false
		for lines := bufio.NewReader(said); ; {
			line, err := lines.ReadBytes('\n')
			heard.add(saidInLogs, line)
			if !working && bytes.Contains(line, []byte("Starting workers")) {
				working = true
				close(p.works)
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// kill ends the program as a failing node would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Errorf("kill the operator: %v", err)
	}
	<-p.ended
	if err := p.cmd.Wait(); !strings.Contains(fmt.Sprint(err), "killed") {
		t.Errorf("the operator ended by itself: %v", err)
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
