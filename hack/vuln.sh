#!/usr/bin/env bash
# Looks for known vulnerabilities in what the shipped programs call, of the Go that builds them too. The database is the Go
# project's own, as the module golang.org/x/vulndb carries it.
#   hack/vuln.sh             the newest. A release needs this to pass
#   hack/vuln.sh --pinned    that of hack/vulndb/go.mod: the same answer for the same sources, for CI
# GOVULNDB names another database in place of it (https://vuln.go.dev, file:///...).
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${1:-} =~ ^(--pinned)?$ ]] || { echo "hack/vuln.sh: $1: say --pinned, or nothing for the newest database" >&2 && exit 2; }
if [ -z "${GOVULNDB:-}" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cp hack/vulndb/go.* "$work/"
  [ $# = 1 ] || go -C hack/vulndb get -modfile="$work/go.mod" golang.org/x/vulndb@latest ||
    { echo "make vuln: nothing was checked, for the newest golang.org/x/vulndb cannot be had; hack/vuln.sh --pinned checks against an older one" >&2 && exit 1; }
  go -C hack/vulndb mod download -modfile="$work/go.mod" golang.org/x/vulndb
  module=$(go -C hack/vulndb list -modfile="$work/go.mod" -m -f '{{.Version}} {{.Time.Format "2006-01-02"}} {{.Dir}}' golang.org/x/vulndb)
  read -r version date folder <<<"$module"
  database=$PWD/bin/vulndb/$version
  if [ ! -d "$database" ]; then
    rm -rf bin/vulndb && mkdir -p bin/vulndb
    go -C hack/vulndb tool -modfile="$work/go.mod" indexdb -vulns "$folder/data/osv" -out "$database.partial"
    mv "$database.partial" "$database"
  fi
  echo "The Go vulnerability database of $date, $(find "$database/ID" -name 'GO-*.json' | wc -l) entries"
  GOVULNDB=file://$database
fi
GOTOOLCHAIN=$(<hack/go-version) go tool -modfile=hack/release/go.mod govulncheck -db "$GOVULNDB" ./cmd/...
