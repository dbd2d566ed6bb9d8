// The manager is the operator: it runs every reconciler until it is told to stop.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/internal/scope"
	"github.com/mcpwarden/mcp-warden/internal/version"
)

func main() {
	if version.Asked("manager", os.Args[1:], os.Stdout) {
		return
	}
	if err := run(); err != nil {
		ctrl.Log.Error(err, "The operator stopped")
		os.Exit(1)
	}
}

// gcPercent trades a little CPU for memory: the caches live long, and what a reconcile makes is gone at once.
const gcPercent = 50

func run() error {
	var (
		leaderElect = flag.Bool("leader-elect", false, "Let one of several replicas work at a time.")
		probeAddr   = flag.String("health-probe-bind-address", ":8081", "Address of /healthz and /readyz.")
		metricsAddr = flag.String("metrics-bind-address", "0", "Address of /metrics, in HTTPS and for whoever may get /metrics, such as :8443; 0 turns it off. Needs the rights in config/metrics.")
		metricsCert = flag.String("metrics-cert-dir", "", "Folder with the certificate of /metrics, tls.crt and tls.key, read again when they change. Empty: the operator signs one itself.")
		clusterDNS  = flag.String("cluster-dns-service", scope.DefaultClusterDNS, "Namespace and name of the Service that answers DNS queries in the cluster.")
		clusterNets = flag.String("cluster-cidrs", "", "Ranges of the cluster, separated by commas, that no cidr egress rule opens, besides what the nodes report: name those of pods where the CNI hands addresses out by itself.")
		namespaces  = flag.String("namespaces", "", "Namespaces, separated by commas, whose MCPServers are managed; no other is looked at. Empty: all. hack/install.sh --namespaces gives the rights that go with it.")
		component   = flag.String("component-image", "", "The operator's own image, which also holds what runs beside servers. Empty: nothing runs beside them.")
		rotations   = flag.Int("max-concurrent-rotations", 10, "How many servers may be in the middle of a rotation of their secrets at the same time.")
		ownNS       = flag.String("operator-namespace", "mcp-warden-system", "Namespace of the operator itself, where it keeps the key of all digests, and where the canary and the probers run.")
		cniBackend  = flag.String("cni-backend", controllers.CNIBackendAuto, "What backs egress proxies up beside NetworkPolicies: cilium (CiliumNetworkPolicies with toFQDNs), none, or auto (cilium where it is served and may be written).")
		workers     = flag.Int("workers", 10, "How many servers are reconciled at the same time.")
	)
	logOptions := zap.Options{}
	logOptions.BindFlags(flag.CommandLine)
	flag.Parse()
	logger := zap.New(zap.UseFlagOptions(&logOptions))
	ctrl.SetLogger(logger)
	slog.SetDefault(slog.New(logr.ToSlogHandler(logger))) // what the standard library says is JSON, too
	logger.Info("The operator starts", "version", version.Version, "goversion", runtime.Version())
	if err := checkVerbosity(logger); err != nil {
		return fmt.Errorf("--zap-log-level: %w", err)
	}

	namespace, name, err := scope.ParseClusterDNS(*clusterDNS)
	if err != nil {
		return fmt.Errorf("--cluster-dns-service: %w", err)
	}
	limitedTo, err := scope.ParseNamespaces(*namespaces)
	if err != nil {
		return fmt.Errorf("--namespaces: %w", err)
	}
	clusterCIDRs, err := parsePrefixes(*clusterNets)
	if err != nil {
		return fmt.Errorf("--cluster-cidrs: %w", err)
	}
	if *rotations < 1 {
		return fmt.Errorf("--max-concurrent-rotations %d: must be at least 1", *rotations)
	}
	serving, err := metricsOptions(*metricsAddr, *metricsCert)
	if err != nil {
		return fmt.Errorf("--metrics-cert-dir: %w", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	config.QPS = -1 // the API server's own priority and fairness decides
	mgr, err := controllers.NewManager(config, controllers.Options{
		Manager: ctrl.Options{
			LeaderElection:                *leaderElect,
			LeaderElectionID:              "mcp-warden",
			LeaderElectionNamespace:       *ownNS,
			LeaderElectionReleaseOnCancel: true,
			HealthProbeBindAddress:        *probeAddr,
			Metrics:                       serving,
		},
		ClusterDNS:     types.NamespacedName{Namespace: namespace, Name: name},
		ClusterCIDRs:   clusterCIDRs,
		Namespaces:     limitedTo,
		CNIBackend:     *cniBackend,
		ComponentImage: *component,
		Namespace:      *ownNS,
		MaxRotations:   *rotations,
		Workers:        *workers,
		Metrics:        metrics.Registry,
	})
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("caches", controllers.CachesRead(mgr)); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

// metricsOptions serve metrics to those who may get them. There is no way to serve them to everybody: what fails, and where, is
// worth knowing to whoever attacks.
func metricsOptions(address, certificates string) (metricsserver.Options, error) {
	out := metricsserver.Options{
		BindAddress: address, SecureServing: true, FilterProvider: controllers.AuthenticateMetrics, CertDir: certificates,
		// A scrape is one request at a time: without HTTP/2 its floods of streams are none of ours (CVE-2023-44487).
		TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos, c.MinVersion = []string{"http/1.1"}, tls.VersionTLS12 }},
	}
	if certificates == "" {
		return out, nil
	}
	// The server would sign a certificate itself where one is missing, which its scrapers do not trust, and nobody would know why.
	for _, name := range []string{"tls.crt", "tls.key"} {
		if _, err := os.Stat(filepath.Join(certificates, name)); err != nil {
			return out, err
		}
	}
	return out, nil
}

// bodiesLevel is the verbosity at which the Kubernetes client logs what it sends and gets, values of Secrets included.
const bodiesLevel = 8

// checkVerbosity refuses a logger that would write secrets.
func checkVerbosity(logger logr.Logger) error {
	if logger.V(bodiesLevel).Enabled() {
		return fmt.Errorf("at %d and above, requests and their answers are logged with the values of Secrets: choose at most %d", bodiesLevel, bodiesLevel-1)
	}
	return nil
}

func parsePrefixes(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			return nil, fmt.Errorf("%w: write ranges such as 10.244.0.0/16", err)
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}
