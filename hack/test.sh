#!/usr/bin/env bash
# Every test that needs no root and no node. The tests that need an API server start one by themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
go -C hack/localcluster run . build kube-control-plane etcd >/dev/null # once per machine; shows its progress
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ]; then
  race=
  echo "test: without the race detector, which needs a C compiler (apt-get install gcc libc6-dev)"
fi
go test $race -timeout 20m ./...
echo "test: TestNode of hack/localcluster starts a whole node as root, and runs with make test-e2e"
go -C hack/localcluster test $race ./...
go -C test/judges test ./...
go -C test/credentials test ./...
