#!/usr/bin/env bash
# Writes what a release consists of into dist/, the same bytes wherever and whenever (hack/reproducible.sh checks that), and
# SHA256SUMS of it all.
#   IMG=host/name[:tag][@sha256:...] VERSION=v0.1.0 hack/dist.sh
# IMG is the operator's image that the manifests and the chart name; VERSION is that of the newest heading of CHANGELOG.md if left out.
set -euo pipefail
cd "$(dirname "$0")/.."
export TZ=UTC LC_ALL=C # tools look at them
umask 022
: "${IMG:?make dist: set IMG to the image that the cluster pulls, by digest best of all}"
export VERSION=${VERSION:-v$(sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -1)}
[[ $VERSION =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || { echo "make dist: VERSION $VERSION: write it as v0.1.0"; exit 1; }
name=${IMG%@*}
digest=
[ "$name" = "$IMG" ] || digest=${IMG#*@}
tag=
[[ ${name##*/} != *:* ]] || tag=${name##*:}
repository=${name%":$tag"}
[ -n "$tag$digest" ] || { echo "make dist: IMG $IMG: say which, by a tag or a digest"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
mkdir dist

# The manifests. The operator is told its own image, which is why there is more than one place.
go tool -modfile=hack/tools/go.mod kustomize build config/default >"$work/manifests"
sed "s#mcp-warden:dev#$IMG#" "$work/manifests" >dist/install.yaml

# The binaries: the plugin to ship, and the image's for their bills of materials.
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
  GOOS=${platform%/*} GOARCH=${platform#*/} hack/build.sh "dist/kubectl-warden-${platform/\//-}" ./cmd/kubectl-warden
done
go -C hack/release run ./notices >dist/THIRD_PARTY_NOTICES
hack/image.sh --binaries "$work/image"

# A bill of materials of each binary.
CGO_ENABLED=0 go -C hack/release build -o "$work/" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod ./sbom
for binary in "$work"/image/*/* dist/kubectl-warden-*; do
  [[ $binary == dist/* ]] && of=${binary#dist/} || of=$(basename "$binary")-linux-$(basename "$(dirname "$binary")")
  "$work/sbom" "$work/cyclonedx-gomod" "$VERSION" "$binary" "dist/$of.cdx.json"
done

# The charts. Helm notes the time in its archives: what it packs is packed again.
[ -x bin/helm4/helm ] || hack/helm.sh
for chart in mcp-warden-crds mcp-warden; do
  cp -r "charts/$chart" "$work/$chart"
done
sed -i -e "s#^  repository: .*#  repository: $repository#" -e "s#^  tag: .*#  tag: \"$tag\"#" -e "s#^  digest: .*#  digest: \"$digest\"#" "$work/mcp-warden/values.yaml"
for chart in mcp-warden-crds mcp-warden; do
  bin/helm4/helm package "$work/$chart" --version "${VERSION#v}" --app-version "$VERSION" --destination "$work" >/dev/null
  rm -r "${work:?}/$chart"
  tar -xmzf "$work/$chart-${VERSION#v}.tgz" -C "$work"
  tar --sort=name --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w -cf - -C "$work" "$chart" |
    gzip -9n >"dist/$chart-${VERSION#v}.tgz"
done

# Everything names the image that was asked for, as often as the manifests in the repository name theirs.
want=$(grep -c 'mcp-warden:dev' "$work/manifests")
chart=$(bin/helm4/helm template mcp-warden "dist/mcp-warden-${VERSION#v}.tgz" --namespace mcp-warden-system)
in_chart=$repository${digest:+@$digest}
[ -n "$digest" ] || in_chart+=:$tag
[ "$(grep -cF "$IMG" dist/install.yaml)" = "$want" ] || { echo "make dist: install.yaml does not name $IMG $want times"; exit 1; }
[ "$(grep -cF "$in_chart" <<<"$chart")" = "$want" ] || { echo "make dist: the chart does not name $in_chart $want times"; exit 1; }

(cd dist && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
