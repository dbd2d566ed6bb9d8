package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Condition is something that must hold before a cluster counts as ready.
type Condition struct {
	// Waiting says what is waited for.
	Waiting string
	// Log names the component whose log tells why it does not come.
	Log   string
	Check func(context.Context) error
}

// Dial connects from inside a node.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Conditions lists what makes the cluster ready: each component by its own word,
// then what they must have brought about together.
func (l Layout) Conditions(c *Client, dial Dial) []Condition {
	processes := l.ControlPlane()
	if l.Config.HasNode() {
		processes = append(processes, l.Node(0)...)
	}
	var conditions []Condition
	for _, p := range processes {
		conditions = append(conditions, Condition{
			Waiting: p.Name,
			Log:     p.Name,
			Check:   func(context.Context) error { return l.componentReady(p.Name) },
		})
	}
	conditions = append(conditions, Condition{
		Waiting: "the default namespace",
		Log:     APIServer,
		Check:   func(ctx context.Context) error { return c.Get(ctx, "/api/v1/namespaces/default", nil) },
	})
	if !slices.Contains(l.Config.Without, ControllerManager) {
		conditions = append(conditions, Condition{
			Waiting: "the default service account",
			Log:     ControllerManager,
			Check: func(ctx context.Context) error {
				return c.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
			},
		})
	}
	if l.Config.HasNode() {
		conditions = append(conditions, l.nodeConditions(c, dial)...)
	}
	return conditions
}

func (l Layout) nodeConditions(c *Client, dial Dial) []Condition {
	return []Condition{{
		Waiting: "the node to be Ready",
		Log:     kubelet,
		Check:   func(ctx context.Context) error { return l.nodeReady(ctx, c) },
	}, {
		Waiting: "CoreDNS",
		Log:     kubelet,
		Check:   func(ctx context.Context) error { return dnsReady(ctx, dial) },
	}}
}

// nodeReady wants the node's word from after the kubelet's last start: what
// stands there from before says nothing.
func (l Layout) nodeReady(ctx context.Context, c *Client) error {
	status, err := l.Cluster.LoadStatus()
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct {
				Type, Status, Message string
				LastHeartbeatTime     time.Time
			}
		}
	}
	if err := c.Get(ctx, "/api/v1/nodes/"+NodeName, &node); err != nil {
		return err
	}
	for _, cond := range node.Status.Conditions {
		switch {
		case cond.Type != "Ready":
		case cond.Status != "True":
			return fmt.Errorf("its condition Ready is %s: %s", cond.Status, cond.Message)
		case cond.LastHeartbeatTime.Before(status.Started(kubelet).Truncate(time.Second)):
			return errors.New("the kubelet has not reported since it started")
		default:
			return nil
		}
	}
	return errors.New("the kubelet has not reported yet")
}

// dnsReady resolves a name as a pod would: that takes the API server, the pod
// network, the Service and CoreDNS. What the API server says of the pod may be
// from before a restart of the node.
func dnsReady(ctx context.Context, dial Dial) error {
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, net.JoinHostPort(dnsService, "53"))
		},
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	if failure, ok := errors.AsType[*net.DNSError](err); ok {
		// The rest of it is about a server that was never asked: the host's.
		return fmt.Errorf("the Service kube-dns does not answer: %s", failure.Err)
	}
	return err
}

func (l Layout) componentReady(name string) error {
	status, err := l.Cluster.LoadStatus()
	if err != nil {
		return err
	}
	for _, c := range status.Components {
		switch {
		case c.Name != name:
		case c.State == state.StateReady:
			return nil
		case c.Problem == "":
			return fmt.Errorf("it is %s", c.State)
		default:
			return fmt.Errorf("it is %s: %s", c.State, c.Problem)
		}
	}
	return errors.New("the supervisor does not know it yet")
}
