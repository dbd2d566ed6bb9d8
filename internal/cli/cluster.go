package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// fieldManager of what the plugin writes.
	fieldManager = "kubectl-warden"
	// completionTimeout bounds how long a shell waits for the names of servers.
	completionTimeout = 3 * time.Second
)

// cluster is how a command reaches one: by the flags that kubectl has.
type cluster struct {
	flags *genericclioptions.ConfigFlags
}

// clusterOf gives a command those flags, and completes the names of servers.
func clusterOf(cmd *cobra.Command) cluster {
	c := cluster{genericclioptions.NewConfigFlags(true)}
	c.flags.CacheDir = nil // nothing is cached
	c.flags.AddFlags(cmd.Flags())
	cmd.ValidArgsFunction = c.completeServers
	return c
}

// connect returns a client, and the namespace that the flags or the kubeconfig name.
func (c cluster) connect() (client.Client, string, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	namespace, _, err := c.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, "", err
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, "", fmt.Errorf("reach the cluster: %w", err)
	}
	return api, namespace, nil
}

func (c cluster) completeServers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const nothing = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, nothing
	}
	api, namespace, err := c.connect()
	if err != nil {
		return nil, nothing
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	servers := &v1alpha1.MCPServerList{}
	if err := api.List(ctx, servers, client.InNamespace(namespace)); err != nil {
		return nil, nothing
	}
	var out []string
	for _, s := range servers.Items {
		out = append(out, s.Name)
	}
	return out, nothing
}

// edit is a command that changes one server.
type edit struct {
	cluster
	streams Streams
	dryRun  string
}

// editOf gives a command what it takes to change a server.
func editOf(cmd *cobra.Command, streams Streams) *edit {
	e := &edit{cluster: clusterOf(cmd), streams: streams}
	cmd.Args = cobra.ExactArgs(1)
	cmd.Flags().StringVar(&e.dryRun, "dry-run", "none", "none, or server: have the API server judge the change and store nothing")
	return e
}

// apply changes a server by a merge patch that is made from what it is, and says what was done.
func (e *edit) apply(ctx context.Context, name string, patchOf func(*v1alpha1.MCPServer) (patch map[string]any, done string, err error)) (*v1alpha1.MCPServer, error) {
	options := []client.PatchOption{client.FieldOwner(fieldManager)}
	suffix := ""
	switch e.dryRun {
	case "none":
	case "server":
		options, suffix = append(options, client.DryRunAll), " (server dry run)"
	default:
		return nil, fmt.Errorf("--dry-run is none or server, not %q", e.dryRun)
	}
	api, namespace, err := e.connect()
	if err != nil {
		return nil, err
	}
	server := &v1alpha1.MCPServer{}
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, server); err != nil {
		return nil, fmt.Errorf("read MCPServer %s/%s: %w", namespace, name, err)
	}
	patch, done, err := patchOf(server)
	if err != nil {
		return nil, fmt.Errorf("MCPServer %s/%s %w", namespace, name, err)
	}
	raw, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	if err := api.Patch(ctx, server, client.RawPatch(types.MergePatchType, raw), options...); err != nil {
		return nil, fmt.Errorf("change MCPServer %s/%s: %w", namespace, name, err)
	}
	_, err = fmt.Fprintf(e.streams.Out, "mcpserver %s/%s %s%s\n", namespace, name, done, suffix)
	return server, err
}

// printable is a text from the cluster without what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
