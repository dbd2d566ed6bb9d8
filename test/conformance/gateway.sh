#!/usr/bin/env bash
# The official conformance suite against a server of the official Go SDK, directly and through the gateway, on loopback: on HTTP without
# sessions and with, and on stdio. It fails where HTTP differs, or where a scenario that counts fails through stdio and not directly.
# It needs Node 22 and npm, which installs the suite into a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=@modelcontextprotocol/conformance@0.2.0-alpha.12

work=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null; pids=(); }
trap 'stop; rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --prefix "$work" "$suite"
go -C test/images build -o "$work/everything-server" github.com/modelcontextprotocol/go-sdk/conformance/everything-server
CGO_ENABLED=0 go build -o "$work/gateway" ./cmd/gateway

# free prints a port that nothing listens at.
free() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'; }
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

# run prints the result of each scenario that a revision requires, in one line each.
run() { # revision, port
  "$work/node_modules/.bin/conformance" server --url "http://127.0.0.1:$2/mcp" --requirements "$1" 2>&1 | grep -E '^ *[✓✗] .*: [0-9]+ passed' || true
}

failed=0
compare() { # revision, stateless
  "$work/everything-server" -http "127.0.0.1:$server_port" -stateless="$2" >"$work/server.log" 2>&1 &
  pids+=($!)
  behind -upstream "http://127.0.0.1:$server_port/mcp"
  run "$1" "$server_port" >"$work/direct"
  run "$1" "$gateway_port" >"$work/http"
  stop
  behind -transport=stdio -- "$work/everything-server"
  run "$1" "$gateway_port" >"$work/stdio"
  stop
  echo "$1: $(wc -l <"$work/direct") scenarios, $(grep -c ✓ "$work/direct") pass directly, $(grep -c ✓ "$work/http") through the gateway, $(grep -c ✓ "$work/stdio") on stdio"
  [ -s "$work/direct" ] || failed=1
  diff "$work/direct" "$work/http" || failed=1
  # On stdio a scenario may have fewer checks, since a lone answer is sent as such and not as a stream; but none fails that passes directly.
  diff <(grep -o '✗ [^:]*' "$work/direct") <(grep -o '✗ [^:]*' "$work/stdio") || failed=1
}
compare 2025-11-25 false
compare 2026-07-28 true
exit $failed
