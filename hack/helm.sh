#!/usr/bin/env bash
# Builds Helm 3 and Helm 4, as hack/tools pins them, into bin/helm3/helm and bin/helm4/helm, or below another folder.
#   hack/helm.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-bin}")
kubernetes=$(go -C hack/tools/helm3 list -m -f '{{.Version}}' k8s.io/client-go) # v0.MINOR.PATCH; Helm 4 finds it by itself
minor=${kubernetes#v0.}
minor=${minor%%.*}
flags="-s -w -X helm.sh/helm/v3/internal/version.version=$(go -C hack/tools/helm3 list -m -f '{{.Version}}' helm.sh/helm/v3)"
for package in pkg/chartutil pkg/lint/rules; do
  flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$minor"
done
CGO_ENABLED=0 go -C hack/tools/helm3 build -trimpath -ldflags="$flags" -o "$out/helm3/" helm.sh/helm/v3/cmd/helm
CGO_ENABLED=0 go -C hack/tools/helm4 build -trimpath -ldflags="-s -w -X helm.sh/helm/v4/internal/version.version=$(go -C hack/tools/helm4 list -m -f '{{.Version}}' helm.sh/helm/v4)" \
  -o "$out/helm4/" helm.sh/helm/v4/cmd/helm
