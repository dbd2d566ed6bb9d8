package controllers_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// gateways answer for those of pods, by the host of the request.
type gateways struct {
	mu sync.Mutex
	// said is what each says, and told how often one had to say all of it.
	said map[string]string
	told map[string]int
}

var inventories = gateways{said: map[string]string{}, told: map[string]int{}}

// offer lets a gateway list tools, each by its name and the letter that its digest is made of.
func (g *gateways) offer(host string, tools ...string) {
	parts, list := []string{}, []inventory.Tool{}
	for _, tool := range tools {
		name, letter, _ := strings.Cut(tool, "=")
		list = append(list, inventory.Tool{Name: name, SHA256: strings.Repeat(letter, 64)})
		parts = append(parts, `{"name":"`+name+`","sha256":"`+strings.Repeat(letter, 64)+`"}`)
	}
	g.say(host, `{"tools":[`+strings.Join(parts, ",")+`],"sha256":"`+inventory.Digest(list)+`"}`)
}

func (g *gateways) say(host, body string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said[host] = body
}

func (g *gateways) timesTold(host string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.told[host]
}

func (g *gateways) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	body, ok := g.said[r.URL.Hostname()]
	if !ok {
		return nil, errors.New("nobody is there")
	}
	if known := strings.Trim(r.Header.Get("If-None-Match"), `"`); known != "" && strings.Contains(body, known) {
		return &http.Response{StatusCode: http.StatusNotModified, Body: http.NoBody}, nil
	}
	g.told[r.URL.Hostname()]++
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// TestToolsAreWatched follows what a server offers: what changes is told once, and what does not costs nothing.
func TestToolsAreWatched(t *testing.T) {
	o := parallel(t)
	const host = "10.244.77.1"
	namespace := newNamespace(t)
	runPods(t, namespace)
	server := example(namespace, "web")
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	waitReason(t, server, v1alpha1.ConditionToolsObserved, v1alpha1.ReasonNotObserved)

	inventories.offer(host, "read=a", "write=b")
	pods := &corev1.PodList{}
	if err := admin.List(t.Context(), pods, client.InNamespace(namespace), client.MatchingLabels(plan.SelectorLabels("web"))); err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	editStatus(t, &pods.Items[0], func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = host, []corev1.PodIP{{IP: host}} })
	waitReason(t, server, v1alpha1.ConditionToolsObserved, v1alpha1.ReasonObserved)
	first := server.Status.Tools
	if first.Count != 2 || len(first.Items) != 2 || first.Items[1].Name != "write" || first.LastChangedTime.IsZero() {
		t.Errorf("tools %+v", first)
	}

	o.calm(t, namespace) // for more than one look
	told, writes := inventories.timesTold(host), len(o.writes(namespace))
	o.calm(t, namespace)
	if now := inventories.timesTold(host); now != told {
		t.Errorf("an inventory that did not change was told %d times more", now-told)
	}
	if now := len(o.writes(namespace)); now != writes {
		t.Errorf("%d writes at rest", now-writes)
	}

	inventories.offer(host, "read=a", "send=c", "write=d")
	eventually(t, func() string {
		if n := len(eventsOf(t, server, v1alpha1.ReasonToolsChanged)); n != 1 {
			return "not told of the change"
		}
		return ""
	})
	note := eventsOf(t, server, v1alpha1.ReasonToolsChanged)[0].Note
	if want := `The server's tools changed, from 2 to 3: added "send"; changed "write".`; note != want {
		t.Errorf("told as %q, want %q", note, want)
	}

	inventories.say(host, `{"tools":[]}`)
	c := waitReason(t, server, v1alpha1.ConditionToolsObserved, v1alpha1.ReasonInventoryUnreadable)
	if c.Status != metav1.ConditionFalse || server.Status.Tools.Count != 3 {
		t.Errorf("a gateway that lies: %+v, %+v", c, server.Status.Tools)
	}
	inventories.offer(host, "read=a", "send=c", "write=d")
	waitReason(t, server, v1alpha1.ConditionToolsObserved, v1alpha1.ReasonObserved)

	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateQuarantined })
	waitReason(t, server, v1alpha1.ConditionToolsObserved, v1alpha1.ReasonQuarantined)
	if server.Status.Tools == nil || server.Status.Tools.Count != 3 {
		t.Errorf("the evidence is gone: %+v", server.Status.Tools)
	}
	if n := len(eventsOf(t, server, v1alpha1.ReasonToolsChanged)); n != 1 {
		t.Errorf("told %d times of one change", n)
	}
}
