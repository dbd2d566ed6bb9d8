package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

const (
	// toolsInterval is how often the gateway of each server is asked for its tools.
	toolsInterval = 30 * time.Second
	// maxAsked bounds the gateways that are asked at the same time, and askTime how long one may take.
	maxAsked = 16
	askTime  = 5 * time.Second
	// maxInventory bounds an answer, in bytes: the most tools that a gateway lists, with the longest names.
	maxInventory = 4 << 20
	// maxUnheard is how often in a row a gateway may not be heard before that is told.
	maxUnheard = 3
)

// tools asks the gateway of one pod of each server which tools the server has, and has the servers reconciled of which the
// status does not say yet what was seen. The status is the memory: an operator that starts writes nothing about what has not changed.
type tools struct {
	reader   client.Reader
	http     *http.Client
	interval time.Duration
	news     chan event.TypedGenericEvent[types.NamespacedName]

	mu sync.Mutex
	// seen is what the status of a server does not say yet, and unheard how often its gateway was not heard in a row.
	seen    map[types.NamespacedName]*status.Tools
	unheard map[types.NamespacedName]int
}

func newTools(reader client.Reader, transport http.RoundTripper, interval time.Duration) *tools {
	if transport == nil {
		transport = &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	}
	return &tools{
		reader: reader, interval: cmp.Or(interval, toolsInterval),
		http: &http.Client{Transport: transport, Timeout: askTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		news: make(chan event.TypedGenericEvent[types.NamespacedName], maxAsked),
		seen: map[types.NamespacedName]*status.Tools{}, unheard: map[types.NamespacedName]int{},
	}
}

// Start looks now and then, until the operator stops.
func (t *tools) Start(ctx context.Context) error {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := t.look(ctx); err != nil {
				ctrl.LoggerFrom(ctx).Error(err, "Look at the servers' tools")
			}
		}
	}
}

// look asks the gateway of every server that runs.
func (t *tools) look(ctx context.Context) error {
	servers := &v1alpha1.MCPServerList{}
	if err := t.reader.List(ctx, servers, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("list MCPServers: %w", err)
	}
	t.forget(servers.Items)
	free := make(chan struct{}, maxAsked)
	var asked sync.WaitGroup
	defer asked.Wait()
	for i := range servers.Items {
		server := &servers.Items[i]
		pod, err := t.podToAsk(ctx, server)
		if err != nil {
			return err
		}
		if pod == nil {
			continue
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		asked.Go(func() {
			defer func() { <-free }()
			known := ""
			if server.Status.Tools != nil {
				known = server.Status.Tools.Digest
			}
			found, err := t.ask(ctx, pod, known)
			t.note(ctx, server, found, err)
		})
	}
	return nil
}

// forget drops what is known of servers that are gone.
func (t *tools) forget(servers []v1alpha1.MCPServer) {
	there := make(map[types.NamespacedName]bool, len(servers))
	for i := range servers {
		there[client.ObjectKeyFromObject(&servers[i])] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.seen {
		if !there[name] {
			delete(t.seen, name)
		}
	}
	for name := range t.unheard {
		if !there[name] {
			delete(t.unheard, name)
		}
	}
}

// podToAsk is one pod of the newest revision that is ready: the oldest of them, so that it is mostly the same; nil where there is none.
func (t *tools) podToAsk(ctx context.Context, server *v1alpha1.MCPServer) (*corev1.Pod, error) {
	if server.Spec.DesiredState != "" && server.Spec.DesiredState != v1alpha1.StateRunning {
		return nil, nil
	}
	pods := &corev1.PodList{}
	if err := t.reader.List(ctx, pods, client.InNamespace(server.Namespace), client.MatchingFields{podServerIndex: server.Name},
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var able []*corev1.Pod
	for i := range pods.Items {
		if pod := &pods.Items[i]; canBeAsked(server, pod) {
			able = append(able, pod)
		}
	}
	if len(able) == 0 {
		return nil, nil
	}
	byAge := func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	}
	newest := slices.MaxFunc(able, byAge).Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	return slices.MinFunc(slices.DeleteFunc(able, func(p *corev1.Pod) bool {
		return p.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != newest
	}), byAge), nil
}

// canBeAsked tells a pod of the server's own that is ready and has a gateway.
func canBeAsked(server *v1alpha1.MCPServer, pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	return pod.DeletionTimestamp == nil && pod.Status.PodIP != "" && owner != nil && owner.Kind == "ReplicaSet" &&
		owner.Name == server.Name+"-"+pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] && plan.HasGateway(&pod.Spec) &&
		slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

// note keeps what was seen of a server, or why nothing was, and has the server reconciled if that is news.
func (t *tools) note(ctx context.Context, server *v1alpha1.MCPServer, found *status.Tools, err error) {
	name := client.ObjectKeyFromObject(server)
	t.mu.Lock()
	if err == nil {
		delete(t.unheard, name)
	} else if t.unheard[name]++; t.unheard[name] >= maxUnheard {
		found = &status.Tools{Trouble: "The gateway cannot be asked for the server's tools: " + err.Error()}
	}
	isNews := found != nil && found.IsNews(&server.Status)
	if delete(t.seen, name); isNews {
		t.seen[name] = found
	}
	t.mu.Unlock()
	if !isNews {
		return
	}
	select {
	case t.news <- event.TypedGenericEvent[types.NamespacedName]{Object: name}:
	case <-ctx.Done():
	}
}

// of is what was seen of a server and its status may not say yet; nil where nothing was.
func (t *tools) of(server types.NamespacedName) *status.Tools {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[server]
}

// ask asks a pod's gateway for the tools, unless they are those of a digest. The errors quote nothing that was answered.
func (t *tools) ask(ctx context.Context, pod *corev1.Pod, known string) (*status.Tools, error) {
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		return nil, errors.New("its pod has no address")
	}
	url := "http://" + net.JoinHostPort(address.String(), strconv.Itoa(plan.GatewayAdminPort)) + "/inventory"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("its pod has no address")
	}
	if known != "" {
		request.Header.Set("If-None-Match", `"`+known+`"`)
	}
	response, err := t.http.Do(request)
	if err != nil {
		return nil, errors.New("it does not answer")
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && known != "":
		return &status.Tools{}, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers with status %d", response.StatusCode)
	}
	return decodeInventory(io.LimitReader(response.Body, maxInventory))
}

// decodeInventory believes nothing: the digests must be some, and the one over all be that of what is listed.
func decodeInventory(body io.Reader) (*status.Tools, error) {
	var said inventory.Inventory
	if err := json.NewDecoder(body).Decode(&said); err != nil || len(said.Tools) > inventory.MaxTools {
		return nil, errors.New("its answer is no list of tools")
	}
	listed := make([]status.Tool, len(said.Tools))
	for i, tool := range said.Tools {
		if !isDigest(tool.SHA256) {
			return nil, errors.New("its answer is no list of tools")
		}
		listed[i] = status.Tool{Name: tool.Name, Digest: tool.SHA256}
	}
	if said.Tools == nil || said.SHA256 != inventory.Digest(said.Tools) {
		return nil, errors.New("the digest of its answer is not that of what it lists")
	}
	return &status.Tools{Inventory: status.NewInventory(listed, said.SHA256)}, nil
}

// isDigest tells SHA-256 in hex.
func isDigest(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64
}
