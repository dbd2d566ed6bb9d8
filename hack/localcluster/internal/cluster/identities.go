package cluster

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/pki"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// The base names of certificates, each named after who presents it.
const (
	certAPIServer         = "apiserver"
	certAPIServerToEtcd   = "apiserver-etcd-client"
	certAPIServerToNode   = "apiserver-kubelet-client"
	certFrontProxy        = "front-proxy-client"
	certEtcd              = "etcd"
	certLoopback          = "loopback"
	certAdmin             = "admin"
	certControllerManager = "controller-manager"
	certScheduler         = "scheduler"
	certKubelet           = "kubelet"
	certProxy             = "kube-proxy"
	certCilium            = "cilium"
)

func identities() []pki.Leaf {
	loopback := []string{"localhost", "127.0.0.1"}
	return []pki.Leaf{
		{File: certAPIServer, CommonName: "kube-apiserver", Hosts: append([]string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			apiServerService, NodeAddress, advertised, NodeName,
		}, loopback...)},
		{File: certAPIServerToEtcd, CommonName: "kube-apiserver"},
		{File: certAPIServerToNode, CommonName: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		{File: certFrontProxy, CommonName: certFrontProxy},
		{File: certEtcd, CommonName: "etcd", Hosts: loopback},
		{File: certLoopback, CommonName: "localhost", Hosts: loopback},
		{File: certAdmin, CommonName: "localcluster-admin", Groups: []string{"system:masters"}},
		{File: certControllerManager, CommonName: "system:kube-controller-manager"},
		{File: certScheduler, CommonName: "system:kube-scheduler"},
		{File: certKubelet, CommonName: "system:node:" + NodeName, Groups: []string{"system:nodes"}, Hosts: []string{NodeName, NodeAddress, "127.0.0.1"}},
		{File: certProxy, CommonName: "system:kube-proxy"},
		{File: certCilium, CommonName: "cilium", Groups: []string{"system:masters"}},
	}
}

// EnsureIdentities makes the cluster's keys and certificates, once.
func EnsureIdentities(c state.Cluster) error {
	return pki.Ensure(c.PKI(), identities())
}

// WriteKubeconfigs writes the kubeconfigs of the components, and the
// administrator's for the host. They follow the ports, which may change.
func (l Layout) WriteKubeconfigs() error {
	inside := "https://" + l.local(PortAPIServer)
	for _, who := range []string{certAdmin, certControllerManager, certScheduler, certKubelet, certProxy, certCilium} {
		if err := l.writeKubeconfig(l.Cluster.Path("kubeconfigs", who), inside, who); err != nil {
			return err
		}
	}
	outside := fmt.Sprintf("https://127.0.0.1:%d", l.Config.Ports[PortAPIServer])
	return l.writeKubeconfig(l.Cluster.Kubeconfig(), outside, certAdmin)
}

// writeKubeconfig embeds the keys, so that the file can be used from anywhere.
// JSON is YAML, and needs no library.
func (l Layout) writeKubeconfig(path, server, who string) error {
	type named map[string]any
	read := func(name string) (string, error) {
		b, err := os.ReadFile(l.Cluster.PKI(name))
		return base64.StdEncoding.EncodeToString(b), err
	}
	ca, err := read("ca.crt")
	if err != nil {
		return err
	}
	cert, err := read(who + ".crt")
	if err != nil {
		return err
	}
	key, err := read(who + ".key")
	if err != nil {
		return err
	}
	name := "localcluster-" + l.Cluster.Name
	b, err := json.MarshalIndent(named{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": name,
		"clusters":        []named{{"name": name, "cluster": named{"server": server, "certificate-authority-data": ca}}},
		"users":           []named{{"name": who, "user": named{"client-certificate-data": cert, "client-key-data": key}}},
		"contexts":        []named{{"name": name, "context": named{"cluster": name, "user": who}}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return state.WriteFile(path, append(b, '\n'), 0o600)
}
