#!/usr/bin/env bash
# The end-to-end tests, on a local cluster of their own that is taken down afterwards.
#   KEEP=1 hack/e2e.sh [go test flags]     leaves the cluster up, and uses it again
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

go -C hack/localcluster build -o ../../bin/localcluster .
[ -n "${KEEP:-}" ] || trap 'bin/localcluster down --name "$cluster"' EXIT
bin/localcluster up --name "$cluster"
images=$(hack/images.sh "$cluster" && hack/clients-image.sh "$cluster")
set -a
eval "$images"
set +a
hack/install.sh "$OPERATOR_IMAGE" bin/localcluster exec --name "$cluster" -- kubectl
KUBECONFIG=$(bin/localcluster kubeconfig --path --name "$cluster")
export KUBECONFIG
E2E_LOCALCLUSTER=$PWD/bin/localcluster E2E_CLUSTER=$cluster E2E_MANAGER=$PWD/bin/images/components/manager \
  go test -tags e2e -count=1 -timeout 40m "$@" ./test/e2e || { diagnose; exit 1; }
# A node's own life and death: what was killed comes back, and down leaves nothing behind.
LOCALCLUSTER_NODE_TEST=1 go -C hack/localcluster test -count=1 -timeout 10m -run '^TestNode$' .
