#!/usr/bin/env bash
# Installs the operator of this checkout and waits until it runs.
#   hack/install.sh [--namespaces=A,B] OPERATOR_IMAGE KUBECTL...
# With namespaces, which must exist, the operator manages MCPServers there and nowhere else, and has
# Roles there instead of a ClusterRole (needs Go). Run it again with another list, or with none, to change that.
set -euo pipefail
cd "$(dirname "$0")/.."
namespaces=
case $1 in
--namespaces=*) namespaces=${1#*=} && shift ;;
--namespaces) namespaces=$2 && shift 2 ;;
esac
image=$1
shift
limited=mcpwarden.io/limited-install # the label of what only a limited install has
stale=$limited
manifests=$("$@" kustomize config/default | sed "s#mcp-warden:dev#$image#")
if [ -n "$namespaces" ]; then
  "$@" get namespaces ${namespaces//,/ } >/dev/null # before anything is changed
  manifests=$(go run ./hack/scope "$namespaces" <<<"$manifests")
  stale="$limited,$limited!=$(grep -m1 "$limited:" <<<"$manifests" | awk '{print $2}')"
fi
# The kinds first: an operator that starts before they are served ends and is started again.
"$@" apply --server-side --force-conflicts -k config/crd >/dev/null
"$@" wait --for=condition=Established crd/mcpservers.mcpwarden.io --timeout=60s >/dev/null
"$@" apply --server-side --force-conflicts -f - >/dev/null <<<"$manifests"
# Rights that this install does not have any more.
"$@" delete rolebindings,roles --all-namespaces -l "$stale" >/dev/null
"$@" -n mcp-warden-system rollout status deployment/mcp-warden --timeout=180s
