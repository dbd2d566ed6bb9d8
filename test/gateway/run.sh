#!/usr/bin/env bash
# Real servers and real clients, directly and through the gateway, on loopback: see main.go for what is compared. It fails where anything differs.
#   test/gateway/run.sh [-only 'server: client']
# Versions are pinned by go.mod and go.sum, and by node/package-lock.json, both with checksums. It needs npm, and gets its own Node.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/bin/real
mkdir -p "$out"
if ! cmp -s test/gateway/node/package-lock.json "$out/installed"; then
  rm -rf "$out/node_modules"
  cp test/gateway/node/package.json test/gateway/node/package-lock.json "$out/"
  npm ci --prefix "$out" --ignore-scripts --no-audit --no-fund
  cp test/gateway/node/package-lock.json "$out/installed"
fi
cp test/gateway/client.mjs "$out/"
export CGO_ENABLED=0
go -C test/gateway build -trimpath -ldflags="-s -w" -o "$out/" github.com/modelcontextprotocol/go-sdk/conformance/everything-server \
  github.com/mark3labs/mcp-go/examples/everything github.com/grafana/mcp-grafana/cmd/mcp-grafana
go -C test/gateway build -o "$out/compare" .
go build -o "$out/gateway" ./cmd/gateway
"$out/compare" -bin "$out" -gateway "$out/gateway" "$@"
