// Package build builds what a cluster runs, once per machine.
package build

import (
	"fmt"
	"slices"
	"strings"
)

// Component is one build from one of the modules below modules/.
type Component struct {
	Name    string
	Version string
	// Module is the folder below modules/ whose go.mod pins the sources.
	Module   string
	Packages []string
	// Rename maps what `go build` calls a binary to what we call it.
	Rename  map[string]string
	Tags    string
	LDFlags string
	CGO     bool
	// Debian names the packages that the build needs, besides Go.
	Debian []string
	// Trees copies folders of a source module into the build.
	Trees []Tree
}

// Tree is a folder that is used as it is.
type Tree struct{ Module, From, To string }

// The names of the components.
const (
	Etcd         = "etcd"
	ControlPlane = "kube-control-plane"
	KubeNode     = "kube-node"
	Containerd   = "containerd"
	Runc         = "runc"
	CoreDNS      = "coredns"
	Pause        = "pause"
	Cilium       = "cilium"
)

const (
	kubernetesVersion = "v1.36.3"
	kubernetesLDFlags = "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=36"
)

// components are in the order in which they are built: what the control plane
// needs first, what takes longest last.
var components = []Component{
	{
		Name:    ControlPlane,
		Version: kubernetesVersion,
		Module:  "kubernetes",
		Packages: []string{
			"k8s.io/kubernetes/cmd/kube-apiserver",
			"k8s.io/kubernetes/cmd/kube-controller-manager",
			"k8s.io/kubernetes/cmd/kube-scheduler",
			"k8s.io/kubernetes/cmd/kubectl",
		},
		LDFlags: kubernetesLDFlags,
	},
	{
		Name:     Etcd,
		Version:  "v3.6.16",
		Module:   "etcd",
		Packages: []string{"go.etcd.io/etcd/server/v3"},
		Rename:   map[string]string{"server": "etcd"},
		LDFlags:  "-s -w",
	},
	{
		Name:     KubeNode,
		Version:  kubernetesVersion,
		Module:   "kubernetes",
		Packages: []string{"k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"},
		LDFlags:  kubernetesLDFlags,
	},
	{
		Name:    Containerd,
		Version: "v2.2.1",
		Module:  "containerd",
		Packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr",
		},
		Tags:    "no_btrfs,no_devmapper,no_zfs",
		LDFlags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.1",
	},
	{
		Name:     Runc,
		Version:  "v1.4.3",
		Module:   "runc",
		Packages: []string{"github.com/opencontainers/runc"},
		Tags:     "seccomp",
		LDFlags:  "-s -w -X main.version=1.4.3",
		CGO:      true,
		Debian:   []string{"gcc", "libc6-dev", "libseccomp-dev", "pkg-config"},
	},
	{
		Name:     CoreDNS,
		Version:  "v1.15.0",
		Module:   "coredns",
		Packages: []string{"."},
		LDFlags:  "-s -w",
	},
	{
		Name:     Pause,
		Version:  "v1",
		Module:   "pause",
		Packages: []string{"."},
		LDFlags:  "-s -w",
	},
	{
		Name:    Cilium,
		Version: "v1.19.0",
		Module:  "cilium",
		Packages: []string{
			"github.com/cilium/cilium/cilium-dbg",
			"github.com/cilium/cilium/daemon",
			"github.com/cilium/cilium/plugins/cilium-cni",
		},
		Rename:  map[string]string{"daemon": "cilium-agent"},
		LDFlags: "-s -w -X github.com/cilium/cilium/pkg/version.ciliumVersion=1.19.0",
		Trees: []Tree{
			{Module: "github.com/cilium/cilium", From: "bpf", To: "lib/bpf"},
			{Module: "github.com/cilium/cilium", From: "pkg/k8s/apis/cilium.io/client/crds", To: "crds"},
		},
	},
}

// Select returns the components of these names, all of them for none, in
// build order.
func Select(names ...string) ([]Component, error) {
	if len(names) == 0 {
		return slices.Clone(components), nil
	}
	for _, n := range names {
		if !slices.ContainsFunc(components, func(c Component) bool { return c.Name == n }) {
			return nil, fmt.Errorf("unknown component %q: choose from %s", n, strings.Join(Names(), ", "))
		}
	}
	var picked []Component
	for _, c := range components {
		if slices.Contains(names, c.Name) {
			picked = append(picked, c)
		}
	}
	return picked, nil
}

// Names lists all components.
func Names() []string {
	names := make([]string, len(components))
	for i, c := range components {
		names[i] = c.Name
	}
	return names
}
