package controllers_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

const (
	// patience is how long a test waits for what should take a second or two. The garbage collector
	// takes up to 30 s to learn of a kind that is new.
	patience = 75 * time.Second
	// glance is how often it looks.
	glance = 20 * time.Millisecond
	// blockedRetry of the operator under test.
	blockedRetry = 300 * time.Millisecond
	// testCheckInterval of the operator under test.
	testCheckInterval = time.Second
	// testToolsInterval of the operator under test.
	testToolsInterval = 200 * time.Millisecond
	// testOwnerAge of the operator under test.
	testOwnerAge = 500 * time.Millisecond
)

var (
	// admin reaches the API server with every right, and without a cache.
	admin client.Client
	// cluster is the control plane that all tests share.
	cluster *apiserver.Server
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // tests mostly wait
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	log.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	server, err := apiserver.Start(context.Background(), "controllers", "kube-scheduler")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cluster = server
	defer func() {
		stopShared()
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if admin, err = client.New(server.Config, client.Options{Scheme: scheme}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := installRights(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "install the operator's rights:", err)
		return 1
	}
	return max(m.Run(), checkRights())
}

// checkRights fails a run of all tests after which a right of the operator is left unused.
func checkRights() int {
	if flag.Lookup("test.run").Value.String() != "" {
		return 0 // some tests tell nothing
	}
	unused, err := unusedRights()
	if err != nil {
		fmt.Fprintln(os.Stderr, "read the operator's rights:", err)
		return 1
	}
	if len(unused) > 0 {
		fmt.Fprintln(os.Stderr, "FAIL: config/rbac gives rights that the operator does not use, or wildcards:", strings.Join(unused, ", "))
		return 1
	}
	return 0
}

// operator is a running manager whose requests are recorded.
type operator struct {
	*recorder
	cancel context.CancelFunc
	done   chan error
}

// startOperator starts an operator and waits until its caches are warm.
func startOperator() (*operator, error) {
	return startOperatorAs(operatorAccount)
}

// startOperatorAs starts one under an account, limited to namespaces if some are named.
func startOperatorAs(account string, namespaces ...string) (*operator, error) {
	return startOperatorWith(account, func(o *controllers.Options) {
		o.Namespaces = namespaces
		if len(namespaces) > 0 {
			o.CheckInterval = 0 // each check asks in each namespace, which would never be calm
		}
	})
}

// componentImage of the operator under test.
const componentImage = "registry.example/mcp-warden:v1"

func startOperatorWith(account string, change func(*controllers.Options)) (*operator, error) {
	return startOperatorBehind(&recorder{}, account, change)
}

// startOperatorBehind starts one whose requests a recorder records, or answers, from the first on.
func startOperatorBehind(r *recorder, account string, change func(*controllers.Options)) (*operator, error) {
	o := &operator{recorder: r, done: make(chan error, 1)}
	recorders = append(recorders, o.recorder)
	c := as(account, cluster.Config)
	c.Wrap(o.wrap)
	opts := controllers.Options{
		Manager: ctrl.Options{
			Metrics:    metricsserver.Options{BindAddress: "0"},
			Controller: config.Controller{SkipNameValidation: new(true)},
		},
		ClusterDNS: types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}, Namespace: operatorNamespace, Workers: 8, BlockedRetry: blockedRetry, OwnerAge: testOwnerAge,
		ComponentImage: componentImage, CheckInterval: testCheckInterval,
		ToolsInterval: testToolsInterval, ToolsTransport: &inventories,
	}
	change(&opts)
	mgr, err := controllers.NewManager(c, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	go func() { o.done <- mgr.Start(ctx) }()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		cancel()
		return nil, <-o.done
	}
	return o, nil
}

func (o *operator) stop() error {
	o.cancel()
	return <-o.done
}

// exclusive starts an operator for one test, which must not be parallel.
func exclusive(t *testing.T) *operator {
	t.Helper()
	if shared != nil {
		t.Fatal("a parallel test ran first: its operator would do the work of this one")
	}
	o, err := startOperator()
	if err != nil {
		t.Fatalf("start operator: %v", err)
	}
	t.Cleanup(func() {
		if err := o.stop(); err != nil {
			t.Errorf("stop operator: %v", err)
		}
	})
	return o
}

var (
	sharedOnce sync.Once
	shared     *operator
	errShared  error
)

// parallel makes the test parallel and returns the operator that all parallel tests share. Tests
// that start one of their own run before the first parallel one goes on.
func parallel(t *testing.T) *operator {
	t.Helper()
	t.Parallel()
	sharedOnce.Do(func() { shared, errShared = startOperator() })
	if errShared != nil {
		t.Fatalf("start operator: %v", errShared)
	}
	return shared
}

func stopShared() {
	if shared != nil {
		if err := shared.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop operator:", err)
		}
	}
}

// newNamespace makes a namespace that goes with the test.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := admin.Create(t.Context(), namespace); err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := admin.DeleteAllOf(ctx, &v1alpha1.MCPServer{}, client.InNamespace(namespace.Name)); err != nil {
			t.Errorf("delete MCPServers: %v", err)
		}
		if err := client.IgnoreNotFound(admin.Delete(ctx, namespace)); err != nil && !apierrors.IsConflict(err) {
			t.Errorf("delete namespace: %v", err)
		}
	})
	return namespace.Name
}

// eventually waits until check returns "", and fails the test with what it returned last.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		problem := check()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %s: %s", patience, problem)
		}
		<-tick.C
	}
}

// example is a server with nothing but what is required.
func example(namespace, name string) *v1alpha1.MCPServer {
	return &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.MCPServerSpec{
			Image:     "registry.example/server:v1",
			Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
		},
	}
}

func create(t *testing.T, obj client.Object) {
	t.Helper()
	if err := admin.Create(t.Context(), obj); err != nil {
		t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
	}
}

// removeLater deletes an object, if it is still there, when the test has ended.
func removeLater(t *testing.T, obj client.Object) {
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(admin.Delete(context.Background(), obj)); err != nil {
			t.Errorf("delete %T %s: %v", obj, obj.GetName(), err)
		}
	})
}

func remove(t *testing.T, obj client.Object) {
	t.Helper()
	if err := admin.Delete(t.Context(), obj); err != nil {
		t.Fatalf("delete %T %s: %v", obj, obj.GetName(), err)
	}
}

func get(t *testing.T, obj client.Object) {
	t.Helper()
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
		t.Fatalf("get %T %s: %v", obj, obj.GetName(), err)
	}
}

// edit changes an object, and changes it again if somebody else did so meanwhile.
func edit[T client.Object](t *testing.T, obj T, change func(T)) {
	t.Helper()
	eventually(t, func() string {
		get(t, obj)
		change(obj)
		err := admin.Update(t.Context(), obj)
		if apierrors.IsConflict(err) {
			return err.Error()
		}
		if err != nil {
			t.Fatalf("update %T %s: %v", obj, obj.GetName(), err)
		}
		return ""
	})
}

// editStatus plays whoever writes the status of an object.
func editStatus[T client.Object](t *testing.T, obj T, change func(T)) {
	t.Helper()
	eventually(t, func() string {
		get(t, obj)
		change(obj)
		err := admin.Status().Update(t.Context(), obj)
		if apierrors.IsConflict(err) {
			return err.Error()
		}
		if err != nil {
			t.Fatalf("update status of %T %s: %v", obj, obj.GetName(), err)
		}
		return ""
	})
}

// condition of a server; its status is empty where there is none.
func condition(server *v1alpha1.MCPServer, conditionType string) metav1.Condition {
	if c := meta.FindStatusCondition(server.Status.Conditions, conditionType); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// waitReason waits until a condition has a reason for the present spec, and returns it.
func waitReason(t *testing.T, server *v1alpha1.MCPServer, conditionType, reason string) metav1.Condition {
	t.Helper()
	var c metav1.Condition
	eventually(t, func() string {
		get(t, server)
		c = condition(server, conditionType)
		if c.Reason != reason || c.ObservedGeneration != server.Generation {
			return fmt.Sprintf("%s is %s, reason %s of generation %d: %s; want reason %s of generation %d",
				conditionType, c.Status, c.Reason, c.ObservedGeneration, c.Message, reason, server.Generation)
		}
		return ""
	})
	return c
}

// newWatch watches one server from now on, until the test ends.
func newWatch(t *testing.T, server *v1alpha1.MCPServer) (watch.Interface, error) {
	t.Helper()
	c, err := client.NewWithWatch(cluster.Config, client.Options{Scheme: admin.Scheme()})
	if err != nil {
		return nil, err
	}
	w, err := c.Watch(t.Context(), &v1alpha1.MCPServerList{}, client.InNamespace(server.Namespace), client.MatchingFields{"metadata.name": server.Name})
	if err != nil {
		return nil, err
	}
	t.Cleanup(w.Stop)
	return w, nil
}
