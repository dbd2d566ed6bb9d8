#!/usr/bin/env bash
# The official conformance suite against servers in pods of a cluster with the operator, through their gateways, and against the same server
# without a gateway and a cluster: on HTTP with sessions and without, and on stdio.
#   test/conformance/cluster.sh CLUSTER      a local cluster that `KEEP=1 E2E_CLUSTER=CLUSTER hack/e2e.sh -run ...` has left
# The suite comes in by kubectl port-forward, which ends at the pod's own loopback: what the gateway serves, with no NetworkPolicy before it.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
work=$(mktemp -d)
namespace=conformance
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null; pids=(); }
kubectl() { bin/localcluster exec --name "$cluster" -- kubectl -n "$namespace" "$@"; }
trap 'stop; kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
source test/conformance/suite.sh
images=$(hack/images.sh "$cluster")
eval "$images"

kubectl apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
server() { # name, args, transport, command
  kubectl apply -f - <<YAML
apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: $1, namespace: $namespace}
spec: {image: "$SERVER_IMAGE", replicas: 1, args: $2, transport: $3, command: $4, resources: {limits: {memory: 2Gi}}}
YAML
}
server sessions '[-http, ":8080", -stateless=false]' '{type: StreamableHTTP, port: 8080}' '[]'
server stateless '[-http, ":8080", -stateless=true]' '{type: StreamableHTTP, port: 8080}' '[]'
server stdio '[]' '{type: Stdio}' '[/everything-server]'
kubectl wait --for=condition=Ready mcpserver --all --timeout=180s

direct=bin/images/everything-server
through() { # revision, server, file
  local port
  port=$(free)
  bin/localcluster exec --name "$cluster" -- kubectl -n "$namespace" port-forward "deployment/$2" "$port:29010" >"$work/forward.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do grep -q Forwarding "$work/forward.log" && break; sleep 0.1; done
  in_cluster=1 results "$1" "http://127.0.0.1:$port/mcp" >"$3"
  stop
}
# The suite runs where the port is forwarded to: in the cluster's network.
conformance() {
  local run=()
  [ -z "${in_cluster:-}" ] || run=(bin/localcluster exec --name "$cluster" -- env "PATH=$PATH")
  "${run[@]}" "$work/node_modules/.bin/conformance" server --url "$@" 2>&1 || true
}

failed=0
all() { # revision, stateless, server on HTTP
  local port
  port=$(free)
  "$direct" -http "127.0.0.1:$port" -stateless="$2" >/dev/null 2>&1 &
  pids+=($!)
  results "$1" "http://127.0.0.1:$port/mcp" >"$work/direct"
  stop
  through "$1" "$3" "$work/http"
  through "$1" stdio "$work/stdio"
  echo "$1: $(wc -l <"$work/direct") scenarios, $(passing "$work/direct") pass directly, $(passing "$work/http") in a pod, $(passing "$work/stdio") in a pod on stdio"
  compare http "$work/direct" "$work/http" || failed=1
  compare stdio "$work/direct" "$work/stdio" || failed=1
}
all 2025-11-25 false sessions
all 2026-07-28 true stateless
exit $failed
