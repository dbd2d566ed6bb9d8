#!/usr/bin/env bash
# Installs the operator of this checkout and waits until it runs.
#   hack/install.sh OPERATOR_IMAGE KUBECTL...
set -euo pipefail
cd "$(dirname "$0")/.."
image=$1
shift
# The kinds first: an operator that starts before they are served ends and is started again.
"$@" apply --server-side --force-conflicts -k config/crd >/dev/null
"$@" wait --for=condition=Established crd/mcpservers.mcpwarden.io --timeout=60s >/dev/null
"$@" kustomize config/default | sed "s#mcp-warden:dev#$image#" | "$@" apply --server-side --force-conflicts -f - >/dev/null
"$@" -n mcp-warden-system rollout status deployment/mcp-warden --timeout=180s
