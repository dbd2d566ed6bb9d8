package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// floor creates the MCPServers and writes the objects of each at once, without looking and without a
// status: as fast as the API server can be written to. It returns the seconds until all Deployments exist.
func (c *cluster) floor(ctx context.Context, opts options, size int) (float64, error) {
	if err := c.createNamespaces(ctx); err != nil {
		return 0, err
	}
	wait, err := c.watchDeployments(ctx, size)
	if err != nil {
		return 0, err
	}
	created, start := make(chan *v1alpha1.MCPServer, size), time.Now()
	errs := make(chan error, 1)
	go func() {
		defer close(created)
		errs <- c.createServers(ctx, opts.workers, size, created)
	}()
	var baselines sync.Map
	if err := inParallel(opts.workers, func() error {
		for server := range created {
			if err := c.writeObjects(ctx, server, &baselines); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	if err := <-errs; err != nil {
		return 0, err
	}
	if err := wait(); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// writeObjects applies what the plan holds and the snapshot of the values, the baseline once for each namespace.
func (c *cluster) writeObjects(ctx context.Context, server *v1alpha1.MCPServer, baselines *sync.Map) error {
	const label = "0123456789abcdef"
	planned, errs := plan.Build(plan.Input{Server: server, Secrets: plan.Secrets{
		Snapshot: plan.SnapshotName(server.Name, label), Label: label, State: `{"deployed":{}}`,
	}})
	if len(errs) > 0 {
		return errs.ToAggregate()
	}
	snapshot := plan.SnapshotSecret(server, label, label, map[string][]byte{"TOKEN": token["token"]})
	for _, o := range slices.Insert(planned.Objects, len(planned.Objects)-1, snapshot) { // before the Deployment
		if _, done := baselines.LoadOrStore(o.Namespace, true); o.Name == plan.BaselineName && done {
			continue
		}
		body, err := json.Marshal(o.Config)
		if err != nil {
			return fmt.Errorf("encode %s: %w", o.Kind, err)
		}
		var obj client.Object = &corev1.Secret{}
		if o.Kind != "Secret" {
			obj = plan.NewLive(o.Kind)
		}
		obj.SetNamespace(o.Namespace)
		obj.SetName(o.Name)
		if err := c.client.Patch(ctx, obj, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner("floor"), client.ForceOwnership); err != nil {
			return fmt.Errorf("apply %s: %w", o.Kind, err)
		}
	}
	return nil
}
