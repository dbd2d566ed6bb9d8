// The manager is the operator: it runs every reconciler until it is told to stop.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mcpwarden/mcp-warden/controllers"
)

func main() {
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
		metricsAddr = flag.String("metrics-bind-address", "0", "Address of /metrics, in plain HTTP; 0 turns it off.")
		clusterDNS  = flag.String("cluster-dns-service", "kube-system/kube-dns", "Namespace and name of the Service that answers DNS queries in the cluster.")
		workers     = flag.Int("workers", 10, "How many servers are reconciled at the same time.")
	)
	logOptions := zap.Options{}
	logOptions.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logOptions)))

	namespace, name, ok := strings.Cut(*clusterDNS, "/")
	if !ok {
		return fmt.Errorf("--cluster-dns-service %q: must be NAMESPACE/NAME, such as kube-system/kube-dns", *clusterDNS)
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
			LeaderElectionReleaseOnCancel: true,
			HealthProbeBindAddress:        *probeAddr,
			Metrics:                       metricsserver.Options{BindAddress: *metricsAddr},
		},
		ClusterDNS: types.NamespacedName{Namespace: namespace, Name: name},
		Workers:    *workers,
	})
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
