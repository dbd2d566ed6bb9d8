package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/internet"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/supervise"
)

// The names of a node's components.
const (
	containerd  = "containerd"
	kubelet     = "kubelet"
	kubeProxy   = "kube-proxy"
	cilium      = "cilium-agent"
	internetDNS = "internet-dns"
)

const containerdSocket = "/run/containerd/containerd.sock"

// debianCNI is where Debian puts the standard CNI plugins.
const debianCNI = "/usr/lib/cni"

// Node lists the processes of a node, which start after the control plane's.
// internetNetNS is the open namespace of the internet.
func (l Layout) Node(internetNetNS int) []supervise.Process {
	processes := []supervise.Process{
		l.internetDNS(internetNetNS),
		l.containerd(),
		l.kubelet(),
		l.kubeProxy(),
	}
	if l.Config.CNI == state.CNICilium {
		processes = append(processes, l.cilium())
	}
	return processes
}

func (l Layout) internetDNS(netns int) supervise.Process {
	return supervise.Process{
		Name:  internetDNS,
		Path:  filepath.Join(l.Build(build.CoreDNS), "coredns"),
		Args:  []string{"-conf", l.Internet().Corefile()},
		Env:   l.environment(""),
		NetNS: netns,
		Ready: func(ctx context.Context) error {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(internet.DNSAddress, "53"))
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
}

// Internet is where the internet keeps its files.
func (l Layout) Internet() internet.Files {
	return internet.Files{Dir: l.Cluster.Path("internet")}
}

func (l Layout) containerd() supervise.Process {
	ctr := filepath.Join(l.Build(build.Containerd), "ctr")
	return supervise.Process{
		Name: containerd,
		Path: filepath.Join(l.Build(build.Containerd), "containerd"),
		Args: []string{"--config", l.containerdConfig()},
		// containerd looks for its shim on PATH.
		Env: l.environment(l.Build(build.Containerd) + ":"),
		Ready: func(ctx context.Context) error {
			return run(ctx, ctr, "--address", containerdSocket, "version")
		},
	}
}

func (l Layout) kubelet() supervise.Process {
	return supervise.Process{
		Name: kubelet,
		Path: filepath.Join(l.Build(build.KubeNode), "kubelet"),
		Args: []string{
			"--config=" + l.kubeletConfig(),
			"--kubeconfig=" + l.Cluster.Path("kubeconfigs", certKubelet),
			"--hostname-override=" + NodeName,
			"--node-ip=" + NodeAddress,
		},
		Env:   l.environment(""),
		After: []string{APIServer, containerd},
		Ready: plainHealthy("http://127.0.0.1:10248/healthz"),
	}
}

func (l Layout) kubeProxy() supervise.Process {
	return supervise.Process{
		Name:  kubeProxy,
		Path:  filepath.Join(l.Build(build.KubeNode), "kube-proxy"),
		Args:  []string{"--config=" + l.proxyConfig()},
		Env:   l.environment(""),
		After: []string{APIServer},
		Ready: plainHealthy("http://127.0.0.1:10256/livez"),
	}
}

func (l Layout) cilium() supervise.Process {
	return supervise.Process{
		Name: cilium,
		Path: filepath.Join(l.Build(build.Cilium), "cilium-agent"),
		Args: []string{
			"--k8s-kubeconfig-path=" + l.Cluster.Path("kubeconfigs", certCilium),
			"--lib-dir=" + filepath.Join(l.Build(build.Cilium), "lib"),
			"--state-dir=/run/cilium",
			"--write-cni-conf-when-ready=" + filepath.Join(cniConfigDir, "05-cilium.conflist"),
			"--devices=" + Uplink,
			"--ipam=kubernetes",
			"--enable-ipv6=false",
			"--routing-mode=native",
			"--ipv4-native-routing-cidr=" + PodCIDR,
			"--enable-ipv4-masquerade=false",
			// Services are kube-proxy's. Cilium's own socket balancing would hook
			// into the root cgroup.
			"--kube-proxy-replacement=false",
			"--enable-hubble=false",
			"--enable-health-checking=false",
			"--enable-endpoint-health-checking=false",
		},
		Env: append(l.environment(l.tools()+":"),
			"K8S_NODE_NAME="+NodeName,
			"CILIUM_K8S_NAMESPACE=kube-system",
		),
		// It waits for its CRDs, and for the pod range in the kubelet's Node.
		After: []string{APIServer, kubelet},
		Ready: plainHealthy("http://127.0.0.1:9879/healthz"),
	}
}

// tools is a folder with the programs that Debian calls by another name than
// Cilium does.
func (l Layout) tools() string { return l.Cluster.Path("node", "tools") }

// plainHealthy makes a readiness check out of a GET without TLS.
func plainHealthy(url string) func(context.Context) error {
	client := &http.Client{Timeout: 5 * time.Second}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, resp.Status)
		}
		return nil
	}
}
