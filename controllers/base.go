package controllers

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// base is what every reconciler works with.
type base struct {
	// Client reads from the cache of NewManager and writes to the API server.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Recorder of events.
	Recorder events.EventRecorder
	// ClusterDNS is the Service that answers DNS queries in the cluster.
	ClusterDNS types.NamespacedName
	// ClusterCIDRs are ranges of the cluster that its nodes do not report.
	ClusterCIDRs []netip.Prefix
	// Namespaces are those that the operator looks at; empty: all.
	Namespaces []string
	// ComponentImage is the operator's own image; empty: nothing runs beside servers.
	ComponentImage string
	// surroundings are what others make that may turn a verdict.
	surroundings *surroundings
	// Now is the clock.
	Now func() time.Time
	// Namespace of the operator itself.
	Namespace string
	// BlockedRetry is how long it takes until what somebody else must cure is tried again.
	BlockedRetry time.Duration
}
