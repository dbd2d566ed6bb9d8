#!/usr/bin/env bash
# Builds the images of the demo and of the end-to-end tests, loads them into a local cluster, or
# pushes them to a registry, and prints a NAME=reference line for each, by digest.
#   hack/images.sh CLUSTER
#   hack/images.sh --push-to HOST/PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
case $1 in
--push-to) target=(--push-to "$2") ;;
*) target=(--name "$1") ;;
esac
out=$PWD/bin/images
# Images are for Linux, whatever this machine is.
export CGO_ENABLED=0 GOOS=linux
components=(manager egress-proxy probe gateway) # as in the Dockerfile
mkdir -p "$out/components" "$out/components-next"
hack/build.sh "$out/components/" "${components[@]/#/./cmd/}"
go -C test/images build -trimpath -ldflags="-s -w" -o "$out/" ./mcpclient ./toolbox \
  github.com/modelcontextprotocol/go-sdk/conformance/everything-server

load() { # VARIABLE, then what localcluster load takes
  local variable=$1
  shift
  echo "$variable=$(bin/localcluster load "${target[@]}" --user 65532:65532 "$@")"
}
load_operator() { # VARIABLE TAG FOLDER
  local files=()
  for c in "${components[@]}"; do files+=(--file "$3/$c=/$c:0755"); done
  load "$1" "mcp-warden:$2" --entrypoint /manager "${files[@]}"
}
load_operator OPERATOR_IMAGE dev "$out/components"
# Another build of the operator, to upgrade to: of another version, which costs no more than linking it.
VERSION=next hack/build.sh "$out/components-next/" "${components[@]/#/./cmd/}"
load_operator OPERATOR_IMAGE_NEXT next "$out/components-next"
load SERVER_IMAGE everything-server:v1.8.0 --entrypoint /everything-server --file "$out/everything-server=/everything-server:0755"
load CLIENT_IMAGE mcpclient:dev --entrypoint /mcpclient --file "$out/mcpclient=/mcpclient:0755"
# The server with tools beside it, so that tests can act inside its pod, and a file that only a
# read-only root file system keeps anybody from writing.
: >"$out/writable"
load TESTBED_IMAGE everything-server-testbed:v1.8.0 --entrypoint /everything-server --file "$out/writable=/writable:0666" \
  --file "$out/everything-server=/everything-server:0755" --file "$out/toolbox=/toolbox:0755" --file "$out/mcpclient=/mcpclient:0755"
