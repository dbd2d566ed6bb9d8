#!/usr/bin/env bash
# The main job on real input: an MCP server that somebody else wrote, run by the operator, called by a
# client that may and by one that may not.
#
#   hack/demo.sh                        on a local cluster (a real node needs Linux and root; without
#                                       them, on a control plane alone, with everything but pods)
#   DEMO_CONTEXT=NAME hack/demo.sh      on your own cluster, which must enforce NetworkPolicies
#     DEMO_REGISTRY=HOST/PREFIX         where the images are pushed to and your cluster pulls them from
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=${DEMO_CLUSTER:-demo}
namespace=mcp-warden-demo
manager=

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '%s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
kubectl() { "${kubectl[@]}" "$@"; }

sample() { sed -e "s#image: everything-server#image: $SERVER_IMAGE#" -e "s#namespace: agents#namespace: $namespace#" config/samples/everything.yaml; }

# client NAME ROLE: a pod that makes one MCP session with the server and ends.
client() {
  kubectl -n "$namespace" delete pod "$1" --ignore-not-found >/dev/null
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: $namespace, labels: {role: $2}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: client
    image: $CLIENT_IMAGE
    args: ["$(endpoint)", test_simple_text]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
YAML
  # Any end will do: the caller looks at which it was.
  kubectl -n "$namespace" wait --for=jsonpath='{.status.containerStatuses[0].state.terminated}' "pod/$1" --timeout=90s >/dev/null ||
    die "pod $1 did not end: $(kubectl -n "$namespace" describe pod "$1" | tail -5)"
  kubectl -n "$namespace" logs "$1"
  [ "$(kubectl -n "$namespace" get pod "$1" -o jsonpath='{.status.containerStatuses[0].state.terminated.exitCode}')" = 0 ]
}

endpoint() { kubectl -n "$namespace" get mcpserver everything -o jsonpath='{.status.endpoint}'; }

show() {
  say '$ kubectl get mcpservers -o wide'
  kubectl -n "$namespace" get mcpservers -o wide
  say
  say '$ kubectl get deployments,services,networkpolicies,serviceaccounts,poddisruptionbudgets'
  kubectl -n "$namespace" get deployments,services,networkpolicies,serviceaccounts,poddisruptionbudgets -l app.kubernetes.io/managed-by=mcp-warden
}

namespace() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
}

with_pods() {
  step "Install the operator"
  hack/install.sh "$OPERATOR_IMAGE" "${kubectl[@]}"
  step "Apply an MCPServer, and wait until it is Ready"
  namespace
  sample
  sample | kubectl apply -f -
  kubectl -n "$namespace" wait --for=condition=Ready mcpserver/everything --timeout=180s ||
    die "not Ready: $(kubectl -n "$namespace" get mcpserver everything -o jsonpath='{.status.conditions[?(@.type=="Ready")].message}')"
  step "Call it from a pod that its spec allows (role=agent)"
  client agent agent || die "the allowed call failed"
  step "Call it from a pod that its spec does not name (role=stranger)"
  if client stranger stranger; then
    die "the call was NOT refused: this cluster's CNI does not enforce NetworkPolicies"
  fi
  say "Refused by the network, as it should be."
  step "What is there now"
  show
}

without_pods() {
  bin/localcluster up --name "$cluster-control-plane" --control-plane-only
  KUBECONFIG=$(bin/localcluster kubeconfig --path --name "$cluster-control-plane")
  export KUBECONFIG
  kubectl=(bin/localcluster exec --name "$cluster-control-plane" -- kubectl)
  SERVER_IMAGE=registry.example/everything-server:v1.8.0
  step "Install the CRDs and run the operator beside the control plane"
  go build -o bin/manager ./cmd/manager
  kubectl apply --server-side -k config/crd
  kubectl wait --for=condition=Established crd/mcpservers.mcpwarden.io --timeout=60s >/dev/null
  kubectl apply -f config/default/namespace.yaml # where it keeps the key of its digests
  bin/manager --health-probe-bind-address=0 2>bin/manager.log &
  manager=$!
  trap 'kill "$manager" 2>/dev/null || true' EXIT
  step "Apply an MCPServer, and wait until its objects are there"
  namespace
  sample
  sample | kubectl apply -f -
  kubectl -n "$namespace" wait --for=create deployment/everything --timeout=60s
  kubectl -n "$namespace" wait --for=condition=Reconciling mcpserver/everything --timeout=60s
  step "What is there now (no node: its pods stay pending)"
  show
}

go -C hack/localcluster build -o ../../bin/localcluster .
if [ -n "${DEMO_CONTEXT:-}" ]; then
  [ -n "${DEMO_REGISTRY:-}" ] || die "set DEMO_REGISTRY=HOST/PREFIX to where the images are pushed to and the cluster pulls them from"
  kubectl=(env kubectl --context "$DEMO_CONTEXT") # env: the program, not the function above
  step "Build the images and push them to $DEMO_REGISTRY"
  images=$(hack/images.sh --push-to "$DEMO_REGISTRY")
  say "$images"
  eval "$images"
  with_pods
  say
  say "To remove all of it: kubectl --context $DEMO_CONTEXT delete namespace $namespace && kubectl --context $DEMO_CONTEXT delete -k config/default"
  exit
fi
step "Bring a local cluster up"
code=0
bin/localcluster up --name "$cluster" || code=$?
case $code in
0)
  kubectl=(bin/localcluster exec --name "$cluster" -- kubectl)
  step "Build the images and load them into the cluster's registry"
  images=$(hack/images.sh "$cluster")
  say "$images"
  eval "$images"
  with_pods
  say
  say "The cluster stays up. Look around: bin/localcluster exec --name $cluster -- kubectl get pods -A"
  say "To remove all of it: bin/localcluster down --name $cluster"
  ;;
3)
  without_pods
  say
  say "To remove all of it: bin/localcluster down --name $cluster-control-plane"
  ;;
*) exit "$code" ;;
esac
