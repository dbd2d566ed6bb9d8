#!/usr/bin/env bash
# Flux's source-controller and kustomize-controller, built from source, on a local cluster that runs the operator: they sync
# docs/examples/gitops from a git repository.
#   test/flux/run.sh CLUSTER [go test flags]      after hack/install.sh, with SERVER_IMAGE as hack/images.sh prints it
# KEEP=1 leaves Flux installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
shift
out=$PWD/bin/flux
kubectl() { bin/localcluster exec --name "$cluster" -- kubectl "$@"; }
module() { go -C test/flux/controllers list -m -f '{{.Dir}}' "github.com/fluxcd/$1"; }

command -v git >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git; } >&2
mkdir -p "$out/install"
echo "-- build Flux's controllers (minutes, the first time)"
test/flux/build.sh
cp test/flux/install/* "$out/install/"
for name in source kustomize; do
  rm -rf "${out:?}/install/$name"
  cp -r "$(module $name-controller)/config" "$out/install/$name" && chmod -R u+w "$out/install/$name"
  image=$(bin/localcluster load --name "$cluster" "$name-controller:dev" --entrypoint "/$name-controller" --file "$out/$name-controller=/$name-controller:0755")
  sed -i "s#image: fluxcd/$name-controller#image: $image#" "$out/install/$name/manager/deployment.yaml"
done
[ -n "${KEEP:-}" ] || trap 'kubectl delete --ignore-not-found --wait=false -k "$out/install" >/dev/null' EXIT
kubectl apply --server-side -k "$out/install" >/dev/null
kubectl -n flux-system rollout status deployment/source-controller --timeout=180s
kubectl -n flux-system rollout status deployment/kustomize-controller --timeout=180s
KUBECONFIG=$(bin/localcluster kubeconfig --path --name "$cluster")
export KUBECONFIG E2E_LOCALCLUSTER=$PWD/bin/localcluster E2E_CLUSTER=$cluster E2E_GITSERVER=$out/gitserver
go test -tags e2e -count=1 -timeout 20m "$@" ./test/flux || {
  echo "-- what Flux says"
  kubectl get gitrepositories,kustomizations,mcpservers,mcppolicies -A || true
  kubectl -n flux-system logs deployment/kustomize-controller --tail=30 || true
  exit 1
}
