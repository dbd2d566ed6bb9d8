// Package scope is what an install that is limited to listed namespaces differs in: which namespaces
// those are, and which rights the operator then has, and where. It is pure.
package scope

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// MaxNamespaces bounds the list: each namespace costs the operator a watch for each kind.
	MaxNamespaces = 100
	// DefaultClusterDNS is the Service that answers DNS queries in most clusters.
	DefaultClusterDNS = "kube-system/kube-dns"
	// APIServerNamespace is where the Service of the API server is, in every cluster.
	APIServerNamespace = "default"
	// APIServerService is its name.
	APIServerService = "kubernetes"
)

// ParseNamespaces reads a list of namespaces that is separated by commas, and returns it sorted and
// without repetition; nil, for all namespaces, where the text is empty.
func ParseNamespaces(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	names := strings.Split(list, ",")
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		if problems := validation.IsDNS1123Label(names[i]); len(problems) > 0 {
			return nil, fmt.Errorf("%q is no name of a namespace: %s", names[i], problems[0])
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > MaxNamespaces {
		return nil, fmt.Errorf("%d namespaces are more than %d: install for all namespaces instead", len(names), MaxNamespaces)
	}
	return names, nil
}

// ParseClusterDNS reads the NAMESPACE/NAME of the cluster's DNS Service.
func ParseClusterDNS(text string) (namespace, name string, err error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1035Label(name)) > 0 {
		return "", "", fmt.Errorf("%q must be NAMESPACE/NAME, such as %s", text, DefaultClusterDNS)
	}
	return namespace, name, nil
}

// ServicesOutside are the Services that the operator reads in namespaces other than those that it is limited to, by
// namespace: those of the API server, whose addresses stay closed, and of the cluster's DNS.
func ServicesOutside(namespaces []string, dnsNamespace, dnsName string) (map[string]string, error) {
	if dnsNamespace == APIServerNamespace && !slices.Contains(namespaces, dnsNamespace) {
		return nil, fmt.Errorf("the cluster's DNS Service %s/%s lies beside that of the API server: list namespace %s too", dnsNamespace, dnsName, dnsNamespace)
	}
	out := map[string]string{}
	for _, service := range [][2]string{{APIServerNamespace, APIServerService}, {dnsNamespace, dnsName}} {
		if !slices.Contains(namespaces, service[0]) {
			out[service[0]] = service[1]
		}
	}
	return out, nil
}
