#!/usr/bin/env bash
# Builds packages as they are shipped: static, by the Go of hack/go-version, and the same bytes from the same sources, wherever
# and whenever.
#   VERSION=v0.1.0 hack/build.sh OUTPUT PACKAGE...     (GOOS and GOARCH say for what; VERSION left out: dev)
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
shift
# What a builder's environment could change of the bytes is said here. Another Go is fetched by the installed one, as a module is.
export GOTOOLCHAIN
GOTOOLCHAIN=$(<hack/go-version)
export CGO_ENABLED=0 GOFLAGS='' GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0
# No VCS stamp: a tree from an archive, or inside a container, has none. The version alone names the build.
go build -trimpath -buildvcs=false \
  -ldflags="-s -w -X github.com/mcpwarden/mcp-warden/internal/version.Version=${VERSION:-dev}" -o "$out" "$@"
