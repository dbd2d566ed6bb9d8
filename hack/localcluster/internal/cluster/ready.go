//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// Conditions lists what makes the cluster ready, in the order in which it comes
// about.
func (l Layout) Conditions(c *Client) []Condition {
	conditions := []Condition{{
		Waiting: "the API server",
		Log:     APIServer,
		Check:   func(ctx context.Context) error { return c.Get(ctx, "/readyz", nil) },
	}, {
		Waiting: "the default namespace",
		Log:     APIServer,
		Check:   func(ctx context.Context) error { return c.Get(ctx, "/api/v1/namespaces/default", nil) },
	}}
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
		conditions = append(conditions, l.nodeConditions(c)...)
	}
	return append(conditions, Condition{
		Waiting: "every component",
		Log:     "supervisor",
		Check:   func(context.Context) error { return l.componentsReady() },
	})
}

func (l Layout) nodeConditions(c *Client) []Condition {
	conditions := []Condition{{
		Waiting: "the node to be Ready",
		Log:     kubelet,
		Check: func(ctx context.Context) error {
			return ready(ctx, c, "/api/v1/nodes/"+NodeName, "Ready")
		},
	}, {
		Waiting: "CoreDNS",
		Log:     "bootstrap",
		Check: func(ctx context.Context) error {
			return ready(ctx, c, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", "Available")
		},
	}}
	return conditions
}

// ready reads one condition of an object.
func ready(ctx context.Context, c *Client, path, condition string) error {
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.Get(ctx, path, &object); err != nil {
		return err
	}
	for _, c := range object.Status.Conditions {
		if c.Type == condition && c.Status == "True" {
			return nil
		}
		if c.Type == condition {
			return fmt.Errorf("%s is %s: %s", condition, c.Status, c.Message)
		}
	}
	return fmt.Errorf("%s is not reported yet", condition)
}

func (l Layout) componentsReady() error {
	status, err := l.Cluster.LoadStatus()
	if err != nil {
		return err
	}
	if len(status.Components) == 0 {
		return errors.New("no component has started")
	}
	for _, c := range status.Components {
		if c.State != state.StateReady {
			return fmt.Errorf("%s is %s: %s", c.Name, c.State, c.Problem)
		}
	}
	return nil
}
