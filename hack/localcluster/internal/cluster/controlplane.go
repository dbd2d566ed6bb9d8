package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/supervise"
)

// The names of the control plane's components.
const (
	etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Optional are the components that a cluster may do without.
func Optional() []string { return []string{ControllerManager, Scheduler} }

// ControlPlane lists the processes of the control plane.
func (l Layout) ControlPlane() []supervise.Process {
	processes := []supervise.Process{l.etcd(), l.apiServer(), l.controllerManager(), l.scheduler()}
	return slices.DeleteFunc(processes, func(p supervise.Process) bool {
		return slices.Contains(l.Config.Without, p.Name)
	})
}

func (l Layout) etcd() supervise.Process {
	client := "https://" + l.local(portEtcdClient)
	peer := "http://" + l.local(portEtcdPeer)
	return supervise.Process{
		Name: etcd,
		Path: filepath.Join(l.Build(build.Etcd), "etcd"),
		Args: []string{
			"--name=default",
			"--data-dir=" + l.Cluster.Path("etcd"),
			"--listen-client-urls=" + client,
			"--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer,
			"--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
			"--socket-reuse-port",
			"--cert-file=" + l.Cluster.PKI(certEtcd+".crt"),
			"--key-file=" + l.Cluster.PKI(certEtcd+".key"),
			"--client-cert-auth",
			"--trusted-ca-file=" + l.Cluster.PKI("ca.crt"),
			// The data need to outlive processes, not the machine.
			"--unsafe-no-fsync",
			"--log-level=warn",
		},
		Env:   l.environment(""),
		Ready: l.healthy(l.local(portEtcdClient), certAPIServerToEtcd, "/health"),
	}
}

func (l Layout) apiServer() supervise.Process {
	bind, advertise := "127.0.0.1", advertised
	if l.Config.HasNode() {
		bind, advertise = "0.0.0.0", NodeAddress
	}
	pki := l.Cluster.PKI
	return supervise.Process{
		Name: APIServer,
		Path: filepath.Join(l.Build(build.ControlPlane), APIServer),
		Args: []string{
			"--bind-address=" + bind,
			"--secure-port=" + strconv.Itoa(l.port(PortAPIServer)),
			"--permit-port-sharing",
			"--advertise-address=" + advertise,
			"--tls-cert-file=" + pki(certAPIServer+".crt"),
			"--tls-private-key-file=" + pki(certAPIServer+".key"),
			"--client-ca-file=" + pki("ca.crt"),
			"--etcd-servers=https://" + l.local(portEtcdClient),
			"--etcd-cafile=" + pki("ca.crt"),
			"--etcd-certfile=" + pki(certAPIServerToEtcd+".crt"),
			"--etcd-keyfile=" + pki(certAPIServerToEtcd+".key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("sa.pub"),
			"--service-account-signing-key-file=" + pki("sa.key"),
			"--service-cluster-ip-range=" + ServiceCIDR,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged",
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki(certAPIServerToNode+".crt"),
			"--kubelet-client-key=" + pki(certAPIServerToNode+".key"),
			// The aggregation layer, which is also how the other components learn
			// whom to trust as a proxy.
			"--proxy-client-cert-file=" + pki(certFrontProxy+".crt"),
			"--proxy-client-key-file=" + pki(certFrontProxy+".key"),
			"--requestheader-client-ca-file=" + pki("ca.crt"),
			"--requestheader-allowed-names=" + certFrontProxy,
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			// Tests and benchmarks come in bursts that no production client would make.
			"--max-requests-inflight=4000",
			"--max-mutating-requests-inflight=2000",
			"--profiling=false",
		},
		Env:   l.environment(""),
		After: []string{etcd},
		Ready: l.healthy(l.local(PortAPIServer), certAdmin, "/readyz"),
	}
}

func (l Layout) controllerManager() supervise.Process {
	pki := l.Cluster.PKI
	args := append(l.serving(portControllerManager, certControllerManager),
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--use-service-account-credentials",
		"--service-account-private-key-file="+pki("sa.key"),
		"--root-ca-file="+pki("ca.crt"),
		"--cluster-signing-cert-file="+pki("ca.crt"),
		"--cluster-signing-key-file="+pki("ca.key"),
		"--service-cluster-ip-range="+ServiceCIDR,
	)
	if l.Config.HasNode() {
		args = append(args, "--allocate-node-cidrs", "--cluster-cidr="+PodCIDR)
	}
	return supervise.Process{
		Name:  ControllerManager,
		Path:  filepath.Join(l.Build(build.ControlPlane), ControllerManager),
		Args:  args,
		Env:   l.environment(""),
		After: []string{APIServer},
		Ready: l.healthy(l.local(portControllerManager), certLoopback, "/healthz"),
	}
}

func (l Layout) scheduler() supervise.Process {
	return supervise.Process{
		Name: Scheduler,
		Path: filepath.Join(l.Build(build.ControlPlane), Scheduler),
		Args: append(l.serving(portScheduler, certScheduler),
			"--kube-api-qps=500",
			"--kube-api-burst=1000",
		),
		Env:   l.environment(""),
		After: []string{APIServer},
		Ready: l.healthy(l.local(portScheduler), certLoopback, "/healthz"),
	}
}

// serving are the flags that controller-manager and scheduler share. There is
// one of each, so that an election would only make starts slow.
func (l Layout) serving(port, who string) []string {
	kubeconfig := l.Cluster.Path("kubeconfigs", who)
	return []string{
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", l.port(port)),
		"--permit-port-sharing",
		"--tls-cert-file=" + l.Cluster.PKI(certLoopback+".crt"),
		"--tls-private-key-file=" + l.Cluster.PKI(certLoopback+".key"),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--profiling=false",
	}
}
