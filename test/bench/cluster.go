package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// namespaces that the servers are spread over.
const namespaces = 10

// cluster is a fresh control plane.
type cluster struct {
	*apiserver.Server
	client client.WithWatch
	raw    kubernetes.Interface
}

func newCluster(server *apiserver.Server) (*cluster, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	c, err := client.NewWithWatch(server.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	raw, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	return &cluster{Server: server, client: c, raw: raw}, nil
}

// example is a server as users have them: some variables, somebody who may call it, somewhere to go.
func example(i int) *v1alpha1.MCPServer {
	return &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace(i), Name: fmt.Sprintf("server-%d", i)},
		Spec: v1alpha1.MCPServerSpec{
			Image:     "registry.example/mcp/server:v1.2.0",
			Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
			Env: []v1alpha1.EnvVar{
				{Name: "LOG_LEVEL", Value: new("info")},
				{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "token", Key: "token"}}},
			},
			Network: &v1alpha1.Network{
				Ingress: []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "agent"}}}},
				Egress:  []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, Ports: []int32{443}}},
			},
		},
	}
}

func namespace(i int) string { return fmt.Sprintf("bench-%d", i%namespaces) }

// createNamespaces makes the operator's namespace, and those of the servers with the Secret that they name.
func (c *cluster) createNamespaces(ctx context.Context) error {
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}}
	for i := range namespaces {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i)}},
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace(i), Name: "token"}, Data: token})
	}
	for _, obj := range objects {
		if err := c.client.Create(ctx, obj); err != nil {
			return fmt.Errorf("create what servers need: %w", err)
		}
	}
	return nil
}

// operatorNamespace is where the operator keeps its own Secret.
const operatorNamespace = "mcp-warden-system"

// token is what the Secret that every server names holds.
var token = map[string][]byte{"token": []byte("not-a-credential")}

// createServers creates servers, and hands each one on as soon as it is there.
func (c *cluster) createServers(ctx context.Context, workers, size int, created chan<- *v1alpha1.MCPServer) error {
	numbers := make(chan int, size)
	for i := range size {
		numbers <- i
	}
	close(numbers)
	return inParallel(workers, func() error {
		for i := range numbers {
			server := example(i)
			if err := c.client.Create(ctx, server); err != nil {
				return fmt.Errorf("create MCPServer: %w", err)
			}
			if created != nil {
				created <- server
			}
		}
		return nil
	})
}

// inParallel runs a function several times at once and returns the errors of all.
func inParallel(n int, f func() error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// watchDeployments returns a function that waits until a watch, begun now, has seen that many.
func (c *cluster) watchDeployments(ctx context.Context, size int) (func() error, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("DeploymentList"))
	if err := c.client.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list Deployments: %w", err)
	}
	w, err := c.client.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	if err != nil {
		return nil, fmt.Errorf("watch Deployments: %w", err)
	}
	seen := make(chan error, 1)
	go func() { // at once: the API server ends a watch that nobody reads
		defer w.Stop()
		seen <- countAdded(ctx, w, size)
	}()
	return func() error { return <-seen }, nil
}

func countAdded(ctx context.Context, w watch.Interface, size int) error {
	for seen := 0; seen < size; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d Deployments exist: %w", seen, size, ctx.Err())
		case event, open := <-w.ResultChan():
			if !open {
				return fmt.Errorf("the watch of Deployments ended after %d of %d", seen, size)
			}
			if event.Type == watch.Added {
				seen++
			}
		}
	}
	return nil
}

// counts are requests by verb and resource.
type counts map[string]int

var requestTotal = regexp.MustCompile(`(?m)^apiserver_request_total\{([^}]*)\} (\S+)$`)
var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// requests are those that the API server has answered so far, about what the operator deals with:
// nobody else does here, but for what creates the MCPServers.
func (c *cluster) requests(ctx context.Context) (counts, error) {
	body, err := c.raw.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the API server's metrics: %w", err)
	}
	out := counts{}
	for _, line := range requestTotal.FindAllStringSubmatch(string(body), -1) {
		labels := map[string]string{}
		for _, pair := range label.FindAllStringSubmatch(line[1], -1) {
			labels[pair[1]] = pair[2]
		}
		resource := strings.TrimSuffix(labels["resource"]+"/"+labels["subresource"], "/")
		if n, err := strconv.ParseFloat(line[2], 64); err == nil && interesting(labels["verb"], resource) {
			out[strings.ToLower(labels["verb"])+" "+resource] += int(n)
		}
	}
	return out, nil
}

// interesting leaves out watches, which begin and end at any time, and what creates the MCPServers.
func interesting(verb, resource string) bool {
	switch resource {
	case "mcpservers":
		return verb != "WATCH" && verb != "POST"
	case "mcpservers/status", "networkpolicies", "serviceaccounts", "services", "deployments", "poddisruptionbudgets", "replicasets",
		"events", "nodes", "pods", "endpointslices", "secrets":
		return verb != "WATCH"
	}
	return false
}

func (c counts) since(before counts) counts {
	out := counts{}
	for key, n := range c {
		if n > before[key] {
			out[key] = n - before[key]
		}
	}
	return out
}

// writes sums what changes objects.
func (c counts) writes() int { return c.sum(true) }

// reads sums what reads them.
func (c counts) reads() int { return c.sum(false) }

func (c counts) sum(writes bool) int {
	sum := 0
	for key, n := range c {
		verb, _, _ := strings.Cut(key, " ")
		if (verb != "get" && verb != "list") == writes {
			sum += n
		}
	}
	return sum
}

// calm waits until no request was made for a while.
func (c *cluster) calm(ctx context.Context) (counts, error) {
	const quiet = 3 * time.Second
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	last, err := c.requests(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		now, err := c.requests(ctx)
		if err != nil {
			return nil, err
		}
		if len(now.since(last)) == 0 {
			return now, nil
		}
		last = now
	}
	return nil, err
}
