#!/usr/bin/env bash
# Fails if what is generated is not what `make generate` writes, if a go.mod is not tidy, if something is linked under a
# licence that we do not ship under, or if anything does not lint.
set -euo pipefail
cd "$(dirname "$0")/.."
modules="$(find . -name go.mod -not -path './hack/localcluster/modules/*' -not -path './test/flux/controllers/*' -exec dirname {} \;)"

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
cp -r api charts config docs internal/credentials/gitleaks "$before"
make --no-print-directory -s generate
for folder in api charts config docs; do
  diff -r "$before/$folder" "$folder" || { echo "verify: $folder was not up to date: commit what make generate wrote"; exit 1; }
done
diff "$before/gitleaks/rules.go" internal/credentials/gitleaks/rules.go || { echo "verify: gitleaks' rules were not up to date: commit what make generate wrote"; exit 1; }
for m in $modules; do
  go -C "$m" mod tidy -diff || { echo "verify: run go mod tidy in $m"; exit 1; }
done
grep -q "^FROM golang:$(sed s/^go// hack/go-version) " Dockerfile || { echo "verify: the Dockerfile builds with another Go than hack/go-version says"; exit 1; }
go -C hack/release run ./notices >/dev/null || { echo "verify: a module is linked that has no licence under which we ship"; exit 1; }
make --no-print-directory lint
