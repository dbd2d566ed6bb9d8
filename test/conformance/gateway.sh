#!/usr/bin/env bash
# The official conformance suite against a server of the official Go SDK, directly and through the gateway, on loopback: on HTTP without
# sessions and with, and on stdio. It fails where HTTP differs, or where a scenario that passes directly fails on stdio.
# It needs npm, which installs the suite and its Node into a temporary folder. See docs/gateway-conformance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null; pids=(); }
trap 'stop; rm -rf "$work"' EXIT
source test/conformance/suite.sh

go -C test/images build -o "$work/everything-server" github.com/modelcontextprotocol/go-sdk/conformance/everything-server
CGO_ENABLED=0 go build -o "$work/gateway" ./cmd/gateway
server_port=$(free) gateway_port=$(free) admin_port=$(free)

# behind starts a gateway, and waits until the server behind it is ready.
behind() {
  "$work/gateway" -listen "127.0.0.1:$gateway_port" -admin-listen "127.0.0.1:$admin_port" "$@" >"$work/gateway.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do
    curl -sf -o /dev/null "http://127.0.0.1:$admin_port/readyz" && return
    sleep 0.1
  done
  echo "the gateway does not become ready:" && cat "$work/gateway.log" && return 1
}

failed=0
all() { # revision, stateless
  "$work/everything-server" -http "127.0.0.1:$server_port" -stateless="$2" >"$work/server.log" 2>&1 &
  pids+=($!)
  behind -upstream "http://127.0.0.1:$server_port/mcp"
  results "$1" "http://127.0.0.1:$server_port/mcp" >"$work/direct"
  results "$1" "http://127.0.0.1:$gateway_port/mcp" >"$work/http"
  stop
  behind -transport=stdio -- "$work/everything-server"
  results "$1" "http://127.0.0.1:$gateway_port/mcp" >"$work/stdio"
  stop
  echo "$1: $(wc -l <"$work/direct") scenarios, $(passing "$work/direct") pass directly, $(passing "$work/http") through the gateway, $(passing "$work/stdio") on stdio"
  grep -h '^✗' "$work/direct" | sed 's/^/  directly: /' || true
  compare http "$work/direct" "$work/http" || failed=1
  compare stdio "$work/direct" "$work/stdio" || failed=1
}
all 2025-11-25 false
all 2026-07-28 true
exit $failed
