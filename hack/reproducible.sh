#!/usr/bin/env bash
# Makes a release twice, in two folders, as two users of different habits and with different Gos installed would, and fails where
# a byte differs.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export IMG=registry.example/mcp-warden@sha256:$(printf '%064d' 0) VERSION=v0.0.0-reproducible
hack/helm.sh
release() { # FOLDER
  mkdir -p "$1/bin"
  git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - | tar -xf - --no-same-permissions -C "$1"
  cp -r bin/helm4 "$1/bin/"
  (cd "$1" && hack/dist.sh && hack/image.sh --tarball dist/image.tar registry.example/mcp-warden:v0 >image)
  (cd "$1/dist" && sha256sum -- * >../all)
}
(umask 077 && export TZ=Asia/Kathmandu LC_ALL=C.UTF-8 GOFLAGS=-buildvcs=auto && release "$work/one")
(umask 002 && export TZ=America/St_Johns LC_ALL=C GOAMD64=v3 GOTOOLCHAIN=$(<hack/go-version) && release "$work/a/longer path/two")
diff "$work/one/all" "$work/a/longer path/two/all" || { echo "reproducible: these differ between two builds of the same sources"; exit 1; }
diff "$work/one/image" "$work/a/longer path/two/image" || { echo "reproducible: the image's digest differs between two builds"; exit 1; }
echo "The same twice: $(wc -l <"$work/one/all") files of a release, and the image"
