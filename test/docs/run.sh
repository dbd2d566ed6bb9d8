#!/usr/bin/env bash
# Types what the documentation says to type, on a local cluster on which the operator is installed (hack/e2e.sh, or
# hack/images.sh and hack/install.sh), in a copy of the repository.
#   test/docs/run.sh CLUSTER [PAGE...]      PAGE as README.md or docs/recipes/database.md; all without
#   HELM=/path/to/helm                      the helm to take; else that on the PATH
# OPERATOR_IMAGE, SERVER_IMAGE, CLIENT_IMAGE and TESTBED_IMAGE are those of hack/images.sh, which is run where they are not set.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
copy=$scratch/mcp-warden
mkdir -p "$copy/bin" "$scratch/path"
git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
  [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$copy"
git -C "$copy" init -q
git -C "$copy" add -A
git -C "$copy" -c user.name=docs -c user.email=docs@example.invalid commit -qm "A copy" >/dev/null

[ -n "${OPERATOR_IMAGE:-}" ] && [ -n "${TESTBED_IMAGE:-}" ] || {
  images=$(hack/images.sh "$cluster")
  set -a
  eval "$images"
  set +a
}
env | grep -E '^(OPERATOR|SERVER|CLIENT|TESTBED)_IMAGE=' >"$copy/bin/images.env"
ln -s "$PWD/bin/localcluster" "$copy/bin/localcluster"
ln -s "$(bin/localcluster build kube-control-plane)/kubectl" "$scratch/path/kubectl"
helm=${HELM:-$(command -v helm || true)}
[ -z "$helm" ] || ln -s "$(realpath "$helm")" "$scratch/path/helm"
CGO_ENABLED=0 go build -o "$copy/bin/" ./cmd/kubectl-warden
KUBECONFIG=$(bin/localcluster kubeconfig --path --name "$cluster")
export KUBECONFIG PATH="$copy/bin:$scratch/path:$PATH" DOCS_SCRATCH=$copy
DOCS_PAGES=$(IFS=,; echo "$*")
export DOCS_PAGES
go test -tags e2e -count=1 -v -timeout 20m -parallel 4 -run '^TestCommands$' ./test/docs
