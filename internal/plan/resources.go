package plan

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// tmpPath is writable in every server, and lives in memory.
	tmpPath = "/tmp"
	// defaultSizeLimit of a writable path; /tmp gets less where that would be most of the memory.
	defaultSizeLimit = "64Mi"
)

// EffectiveResources are the requests and limits of the server's container: what the spec says, and
// defaults for the rest, moved so that no request is above its limit.
func EffectiveResources(spec *v1alpha1.MCPServerSpec) v1alpha1.ResourceRequirements {
	var asked v1alpha1.ResourceRequirements
	if spec.Resources != nil {
		asked = *spec.Resources
	}
	if asked.Requests == nil {
		asked.Requests = &v1alpha1.ResourceAmounts{}
	}
	if asked.Limits == nil {
		asked.Limits = &v1alpha1.ResourceAmounts{}
	}
	out := v1alpha1.ResourceRequirements{Requests: &v1alpha1.ResourceAmounts{}, Limits: &v1alpha1.ResourceAmounts{}}
	out.Requests.CPU, out.Limits.CPU = requestAndLimit(
		asked.Requests.CPU, asked.Limits.CPU, resource.MustParse("50m"), resource.MustParse("1"))
	out.Requests.Memory, out.Limits.Memory = requestAndLimit(
		asked.Requests.Memory, asked.Limits.Memory, resource.MustParse("128Mi"), resource.MustParse("512Mi"))
	out.Requests.EphemeralStorage, out.Limits.EphemeralStorage = requestAndLimit(
		asked.Requests.EphemeralStorage, asked.Limits.EphemeralStorage, resource.MustParse("64Mi"), defaultStorageLimit(spec))
	return out
}

// defaultStorageLimit leaves room for logs beside the writable paths that are kept on disk.
func defaultStorageLimit(spec *v1alpha1.MCPServerSpec) resource.Quantity {
	sum := resource.MustParse("256Mi")
	for _, path := range diskPaths(spec) {
		sum.Add(*path.SizeLimit)
	}
	return sum
}

// requestAndLimit fills in what is missing: a default gives way to what was asked for.
func requestAndLimit(request, limit *resource.Quantity, defaultRequest, defaultLimit resource.Quantity) (*resource.Quantity, *resource.Quantity) {
	switch {
	case request == nil && limit == nil:
		return &defaultRequest, &defaultLimit
	case request == nil:
		return rounded(smaller(defaultRequest, *limit)), rounded(*limit)
	case limit == nil:
		return rounded(*request), rounded(larger(defaultLimit, *request))
	}
	return rounded(*request), rounded(*limit)
}

// rounded up to what a container can be given, as the API server would: else what is live would
// never be what was planned.
func rounded(q resource.Quantity) *resource.Quantity {
	out := q.DeepCopy()
	out.RoundUp(resource.Milli)
	return &out
}

func smaller(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) > 0 {
		return b
	}
	return a
}

func larger(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) < 0 {
		return b
	}
	return a
}

func resourceList(amounts *v1alpha1.ResourceAmounts) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *amounts.CPU,
		corev1.ResourceMemory:           *amounts.Memory,
		corev1.ResourceEphemeralStorage: *amounts.EphemeralStorage,
	}
}
