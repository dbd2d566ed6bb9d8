#!/usr/bin/env bash
# Builds Flux's source-controller and kustomize-controller, and the git server of the test, into bin/flux or another folder
# (minutes, the first time).
#   test/flux/build.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:-bin/flux}")
mkdir -p "$out"
CGO_ENABLED=0 GOOS=linux go -C test/flux/controllers build -trimpath -ldflags="-s -w" -o "$out/" \
  github.com/fluxcd/source-controller github.com/fluxcd/kustomize-controller
CGO_ENABLED=0 go build -o "$out/gitserver" ./test/flux/gitserver
