package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// cniConfigDir is where the runtime looks for the pod network.
const cniConfigDir = "/etc/cni/net.d"

func (l Layout) containerdConfig() string { return l.Cluster.Path("node", "containerd.toml") }
func (l Layout) kubeletConfig() string    { return l.Cluster.Path("node", "kubelet.json") }
func (l Layout) proxyConfig() string      { return l.Cluster.Path("node", "kube-proxy.json") }

// WriteNodeFiles writes the configuration of a node's components. It is called
// inside the node's mounts.
func (l Layout) WriteNodeFiles(pauseImage string) error {
	files := map[string]func() ([]byte, error){
		l.containerdConfig(): func() ([]byte, error) { return []byte(l.containerdTOML(pauseImage)), nil },
		l.kubeletConfig():    l.kubeletJSON,
		l.proxyConfig():      l.proxyJSON,
		"/etc/containerd/certs.d/" + RegistryHost + "/hosts.toml": func() ([]byte, error) { return []byte(registryTOML), nil },
	}
	if l.Config.CNI == state.CNIBridge {
		files[filepath.Join(cniConfigDir, "10-bridge.conflist")] = bridgeJSON
	}
	for path, content := range files {
		b, err := content()
		if err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		if err := state.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(cniConfigDir, 0o755); err != nil {
		return err
	}
	return l.linkTools()
}

func (l Layout) linkTools() error {
	if err := os.MkdirAll(l.tools(), 0o755); err != nil {
		return err
	}
	err := os.Symlink("/usr/bin/clang-19", filepath.Join(l.tools(), "clang"))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (l Layout) containerdTOML(pauseImage string) string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = %q

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  # Machines without CAP_SYS_RESOURCE may not lower a score, and fail to try.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q, %q]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
`, containerdSocket, pauseImage, debianCNI, l.Build(build.Cilium), cniConfigDir,
		filepath.Join(l.Build(build.Runc), "runc"))
}

// registryTOML leads the registry's name to the one in the supervisor, which
// needs no TLS since nobody else is on the way.
const registryTOML = `server = "http://127.0.0.1:5000"

[host."http://127.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
`

type object map[string]any

func (l Layout) kubeletJSON() ([]byte, error) {
	return json.MarshalIndent(object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": l.Cluster.PKI("ca.crt")},
		},
		"authorization":     object{"mode": "Webhook"},
		"tlsCertFile":       l.Cluster.PKI(certKubelet + ".crt"),
		"tlsPrivateKeyFile": l.Cluster.PKI(certKubelet + ".key"),
		"clusterDNS":        []string{dnsService},
		"clusterDomain":     "cluster.local",
		"resolvConf":        "/etc/resolv.conf",
		"volumePluginDir":   "/var/lib/kubelet/volumeplugins",
		// The cluster's own cgroup is what the kubelet sees as the root.
		"cgroupDriver":           "cgroupfs",
		"cgroupRoot":             "/",
		"failCgroupV1":           false,
		"enforceNodeAllocatable": []string{},
		"failSwapOn":             false,
		"oomScoreAdj":            0,
		// A full disk of the machine is not the cluster's to mend.
		"evictionHard": object{
			"memory.available":  "100Mi",
			"nodefs.available":  "1%",
			"imagefs.available": "1%",
		},
		// Tests roll a hundred servers at once. A node's range has 254 addresses.
		"maxPods":                     230,
		"kubeAPIQPS":                  500,
		"kubeAPIBurst":                1000,
		"imageGCHighThresholdPercent": 100,
		"serializeImagePulls":         false,
		"registryPullQPS":             0,
		"makeIPTablesUtilChains":      false,
	}, "", "  ")
}

func (l Layout) proxyJSON() ([]byte, error) {
	return json.MarshalIndent(object{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"hostnameOverride":   NodeName,
		"clusterCIDR":        PodCIDR,
		"clientConnection":   object{"kubeconfig": l.Cluster.Path("kubeconfigs", certProxy)},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		// Tests wait for every change.
		"nftables": object{"minSyncPeriod": "0s", "syncPeriod": "30s"},
		// These limits belong to the machine.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	}, "", "  ")
}

// bridgeJSON is a pod network that knows nothing of NetworkPolicy. Each pod has
// a link of its own to the node, which routes: with all of them on one bridge,
// answers of a Service could bypass the translation of its address.
func bridgeJSON() ([]byte, error) {
	return json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "localcluster",
		"plugins": []object{{
			"type":   "ptp",
			"ipMasq": false,
			"ipam": object{
				"type":    "host-local",
				"dataDir": "/run/cni-ipam",
				"ranges":  [][]object{{{"subnet": nodePodCIDR}}},
				"routes":  []object{{"dst": "0.0.0.0/0"}},
			},
		}, {
			"type":         "portmap",
			"capabilities": object{"portMappings": true},
		}},
	}, "", "  ")
}
