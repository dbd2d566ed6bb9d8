#!/usr/bin/env bash
# Makes the operator's image for linux/amd64 and linux/arm64 with Go alone, no container engine, and prints its reference by
# digest. The same sources and VERSION give the same digest.
#   VERSION=v0.1.0 hack/image.sh --push HOST/NAME:TAG             (a registry on loopback is spoken to in plain HTTP)
#   VERSION=v0.1.0 hack/image.sh --tarball FILE HOST/NAME:TAG     (an OCI layout)
#   VERSION=v0.1.0 hack/image.sh --binaries FOLDER                (no image: what goes into it)
set -euo pipefail
cd "$(dirname "$0")/.."
binaries() {
  for arch in amd64 arm64; do
    mkdir -p "$1/$arch"
    GOOS=linux GOARCH=$arch hack/build.sh "$1/$arch/" ./cmd/manager ./cmd/egress-proxy ./cmd/probe ./cmd/gateway
  done
}
case ${1:-} in
--binaries) binaries "$2" && exit ;;
--push) how=(--push) && tag=$2 ;;
--tarball) mkdir -p "$(dirname "$2")" && how=(--tarball "$(realpath "$2")") && tag=$3 ;;
*) echo "hack/image.sh: say --push, --tarball or --binaries" && exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binaries "$work"
go -C hack/release run ./notices >"$work/THIRD_PARTY_NOTICES"
# By the Go that the programs are built by: the compressed layers depend on it.
GOTOOLCHAIN=$(<hack/go-version) go -C hack/localcluster run ./operatorimage --binaries "$work" --notices "$work/THIRD_PARTY_NOTICES" \
  --version "${VERSION:-dev}" --tag "$tag" "${how[@]}"
