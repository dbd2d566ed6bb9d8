// Package cluster describes the components of a cluster: what each is started
// with, and how to tell that it works.
package cluster

import (
	"path/filepath"
	"strconv"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Layout is where a component finds everything.
type Layout struct {
	Cluster state.Cluster
	Config  state.Config
	// Cache is the build cache as the components see it.
	Cache string
}

// HostLayout is the layout of whatever runs in the host's own namespaces.
func HostLayout(c state.Cluster, cfg state.Config) Layout {
	return Layout{Cluster: c, Config: cfg, Cache: cfg.Cache}
}

// Build is the folder of a built component.
func (l Layout) Build(component string) string {
	return filepath.Join(l.Cache, "builds", l.Config.Builds[component])
}

// The addresses of a cluster. Each cluster has its own network namespace, so
// that they can be the same in all.
const (
	ServiceCIDR      = "10.96.0.0/16"
	apiServerService = "10.96.0.1"
	dnsService       = "10.96.0.10"
	PodCIDR          = "10.244.0.0/16"
	// nodePodCIDR is what the controller-manager gives to the only node.
	nodePodCIDR = "10.244.0.0/24"
	NodeName    = "node-1"
	NodeAddress = "172.30.0.2"
	// Uplink is the interface of the node that leads outside.
	Uplink = "eth0"
	// advertised stands for the node where there is none: the API server refuses
	// to advertise a loopback address. It is from a range kept for documentation.
	advertised = "192.0.2.1"

	// RegistryHost is the name under which images are pulled.
	RegistryHost = "registry.localcluster:5000"
)

// The uses of ports on the host's loopback.
const (
	PortAPIServer         = "kube-apiserver"
	PortRegistry          = "registry"
	portEtcdClient        = "etcd"
	portEtcdPeer          = "etcd-peer"
	portControllerManager = "kube-controller-manager"
	portScheduler         = "kube-scheduler"
)

// ControlPlanePorts are the ports that a control plane on the host's loopback
// needs.
func ControlPlanePorts() []string {
	return []string{PortAPIServer, portEtcdClient, portEtcdPeer, portControllerManager, portScheduler}
}

// fixedPorts are used inside a node's own network namespace.
var fixedPorts = map[string]int{
	PortAPIServer:         6443,
	portEtcdClient:        2379,
	portEtcdPeer:          2380,
	portControllerManager: 10257,
	portScheduler:         10259,
}

// port is where a component listens.
func (l Layout) port(use string) int {
	if l.Config.HasNode() {
		return fixedPorts[use]
	}
	return l.Config.Ports[use]
}

// local is a loopback address with the port of a use.
func (l Layout) local(use string) string {
	return "127.0.0.1:" + strconv.Itoa(l.port(use))
}

// InsideAPIServer is the API server's address for the node's own processes.
func (l Layout) InsideAPIServer() string { return l.local(PortAPIServer) }

// Components needed from the build.
func Components(cfg state.Config) []string {
	names := []string{build.ControlPlane, build.Etcd}
	if !cfg.HasNode() {
		return names
	}
	names = append(names, build.KubeNode, build.Containerd, build.Runc, build.CoreDNS, build.Pause)
	if cfg.CNI == state.CNICilium {
		names = append(names, build.Cilium)
	}
	return names
}

// Marker is the environment variable by which a cluster's processes are found.
const Marker = "MCP_WARDEN_LOCALCLUSTER"

// environment is what components start with: nothing of the caller's, since a
// proxy or a kubeconfig of his must not leak into the cluster.
func (l Layout) environment(path string) []string {
	return []string{
		"PATH=" + path + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + l.Cluster.Path(),
		Marker + "=" + l.Config.ID,
	}
}

// DebianPackages are needed to run the cluster, besides those that building it
// needs.
func DebianPackages(cfg state.Config) []string {
	if !cfg.HasNode() {
		return nil
	}
	packages := []string{"containernetworking-plugins", "iproute2", "libseccomp2", "mount", "nftables"}
	if cfg.CNI == state.CNICilium {
		packages = append(packages, "clang-19", "iptables")
	}
	return packages
}
