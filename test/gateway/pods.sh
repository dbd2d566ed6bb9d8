#!/usr/bin/env bash
# Real servers in pods of a local cluster with the operator, and real clients, as run.sh has them: see main.go for what is compared.
#   test/gateway/pods.sh CLUSTER [-only 'server: client']     CLUSTER: one that `KEEP=1 E2E_CLUSTER=CLUSTER hack/e2e.sh -run ...` has left
# Clients come in by kubectl port-forward, which ends at the pod's own loopback.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
shift
out=$PWD/bin/real
namespace=gateway-real
list=$(mktemp)
pids=()
kubectl() { bin/localcluster exec --name "$cluster" -- kubectl -n "$namespace" "$@"; }
stop() { for pid in "${pids[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null; }
trap 'stop; kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true; rm -f "$list"' EXIT
test/gateway/run.sh -h >&2 # builds all

# The servers of npm, without the clients, on Node's own binary.
packages=$out/image
if ! cmp -s test/gateway/node/package-lock.json "$packages/installed"; then
  rm -rf "$packages"
  mkdir -p "$packages"
  cp test/gateway/node/package.json test/gateway/node/package-lock.json "$packages/"
  npm ci --prefix "$packages" --ignore-scripts --omit=dev --no-audit --no-fund
  cp test/gateway/node/package-lock.json "$packages/installed"
fi
load() { bin/localcluster load --name "$cluster" --user 65532:65532 "$@"; }
program() { load "$1:real" --entrypoint "/$1" --file "$out/$1=/$1:0755"; }
node=$(echo "$packages"/node_modules/node-linux-*/bin/node)
files=$(
  ldd "$node" | grep -o '/[^ ]* (' | tr -d ' (' | sort -u | while read -r file; do echo "--file=$(readlink -f "$file")=$file:0755"; done
  cd "$packages/node_modules"
  find . \( -name '*.js' -o -name '*.cjs' -o -name '*.mjs' -o -name '*.json' -o -path '*/dist/docs/*' \) -not -path './node-linux-*' -type f -printf "--file=$packages/node_modules/%P=/app/node_modules/%P:0644\n"
)
mapfile -t files <<<"$files"
npm_image=$(load npm-servers:real --entrypoint /usr/bin/node --file="$node=/usr/bin/node:0755" "${files[@]}")
sdk_image=$(program everything-server)
go_image=$(program everything)
grafana_image=$(program mcp-grafana)

kubectl apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
server() { # name, name in the list, image, rest of the spec
  kubectl apply -f - <<YAML
apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: $1, namespace: $namespace}
spec: {image: "$3", replicas: 1, resources: {limits: {memory: 1Gi}}, $4}
YAML
  servers+=("$1")
  names+=("$2")
}
servers=() names=()
script() { echo "/app/node_modules/@modelcontextprotocol/server-$1/dist/index.js"; }
stdio='transport: {type: Stdio}'
http='transport: {type: StreamableHTTP, port: 8080}'
files=/var/tmp/gateway-real # as in servers.go
grafana="env: [{name: GRAFANA_URL, value: 'http://127.0.0.1:3000'}]"
server sdk-sessions 'go-sdk everything-server, HTTP with sessions' "$sdk_image" "$http, args: [-http, ':8080', -stateless=false]"
server sdk-stateless 'go-sdk everything-server, HTTP without' "$sdk_image" "$http, args: [-http, ':8080', -stateless=true]"
server sdk-stdio 'go-sdk everything-server, stdio' "$sdk_image" "$stdio, command: [/everything-server]"
server npm-http 'npm server-everything, HTTP' "$npm_image" "$http, args: [$(script everything), streamableHttp], env: [{name: PORT, value: '8080'}]"
server npm-stdio 'npm server-everything, stdio' "$npm_image" "$stdio, command: [/usr/bin/node, $(script everything), stdio]"
server go-http 'mcp-go everything, HTTP' "$go_image" "$http, args: [-t, http]"
server go-stdio 'mcp-go everything, stdio' "$go_image" "$stdio, command: [/everything]"
server grafana-http 'mcp-grafana, HTTP' "$grafana_image" "$http, args: [-t, streamable-http, -address, ':8080'], $grafana"
server grafana-stdio 'mcp-grafana, stdio' "$grafana_image" "$stdio, command: [/mcp-grafana], $grafana"
server filesystem 'npm server-filesystem, stdio' "$npm_image" "$stdio, command: [/usr/bin/node, $(script filesystem), $files/files], filesystem: {writablePaths: [{path: $files/files}]}"
server memory 'npm server-memory, stdio' "$npm_image" "$stdio, command: [/usr/bin/node, $(script memory)], filesystem: {writablePaths: [{path: $files/graph}]}, env: [{name: MEMORY_FILE_PATH, value: $files/graph/memory.jsonl}]"
kubectl wait --for=condition=Ready mcpserver --all --timeout=240s

port=39000
for i in "${!servers[@]}"; do
  port=$((port + 1))
  bin/localcluster exec --name "$cluster" -- kubectl -n "$namespace" port-forward "deployment/${servers[i]}" "$port:29010" >/dev/null 2>&1 &
  pids+=($!)
  printf '%s\t127.0.0.1:%d\n' "${names[i]}" "$port" >>"$list"
done
sleep 3 # until they listen
bin/localcluster exec --name "$cluster" -- "$out/compare" -bin "$out" -gateway "$out/gateway" -pods "$list" "$@"
