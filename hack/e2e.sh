#!/usr/bin/env bash
# The end-to-end tests, on a local cluster of their own that is taken down afterwards.
#   KEEP=1 hack/e2e.sh [go test flags]     leaves the cluster up, and uses it again
#   E2E_IDLE=1h hack/e2e.sh -v -run TestIdle -timeout 90m     looks for false alarms for longer than a minute
# Without flags, a second cluster follows on which nothing is enforced.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=${E2E_CLUSTER:-e2e}

kubectl() { bin/localcluster exec --name "$cluster" -- kubectl "$@"; }

diagnose() {
  echo "-- what the cluster looks like"
  kubectl get mcpservers,pods -A -o wide || true
  echo "-- the operator's log"
  kubectl -n mcp-warden-system logs deployment/mcp-warden --all-pods --tail=50 || true
}

# take COMMAND...: into the environment what a command prints as NAME=value lines.
take() {
  local lines
  lines=$("$@")
  set -a
  eval "$lines"
  set +a
}

# start CLUSTER CNI: brings a cluster up and installs the operator.
start() {
  cluster=$1
  [ -n "${KEEP:-}" ] || trap 'bin/localcluster down --name "$cluster"' EXIT
  bin/localcluster up --name "$cluster" --cni="$2"
  take hack/images.sh "$cluster"
  hack/install.sh "$OPERATOR_IMAGE" bin/localcluster exec --name "$cluster" -- kubectl
  KUBECONFIG=$(bin/localcluster kubeconfig --path --name "$cluster")
  export KUBECONFIG
  export E2E_LOCALCLUSTER=$PWD/bin/localcluster E2E_CLUSTER=$cluster E2E_CNI=$2 E2E_MANAGER=$PWD/bin/images/components/manager
}

run() { go test -tags e2e -count=1 -timeout 40m "$@" ./test/e2e || { diagnose; exit 1; }; }

go -C hack/localcluster build -o ../../bin/localcluster .
start "$cluster" cilium
take hack/clients-image.sh "$cluster"
hack/helm.sh
echo "-- where NetworkPolicies are enforced; skipped here, and run by themselves after it where no flags are given: TestHelm, TestProofWithoutEnforcement (--cni=bridge)"
# How a test turns the enforcement of NetworkPolicies off and on.
agent=$(bin/localcluster status --name "$cluster" | awk '$1 == "cilium-agent" { print $3 }')
E2E_CILIUM="nsenter --target $agent --mount -- $(bin/localcluster build cilium)/cilium-dbg" run ${1:--skip=^TestHelm$} "${@:2}"
[ $# = 0 ] || exit 0
echo "-- what the documentation says to type"
HELM=bin/helm3/helm test/docs/run.sh "$cluster"
echo "-- Flux syncs a repository of servers"
test/flux/run.sh "$cluster"
echo "-- Helm 3 and Helm 4 install, upgrade, roll back and uninstall the operator, under fifty servers"
run -v -run '^TestHelm$'
[ -n "${KEEP:-}" ] || bin/localcluster down --name "$cluster"
echo "-- where NetworkPolicies are not enforced: a cluster with --cni=bridge"
start "$cluster-bridge" bridge
run -v -run '^TestProofWithoutEnforcement$'
# A node's own life and death: what was killed comes back, and down leaves nothing behind.
LOCALCLUSTER_NODE_TEST=1 go -C hack/localcluster test -count=1 -timeout 10m -run '^TestNode$' .
