#!/usr/bin/env bash
# Makes an image of the server of the end-to-end tests with real HTTP clients beside it, of the files of
# Debian's packages, loads it into a local cluster and prints CLIENTS_IMAGE=reference.
#   hack/clients-image.sh CLUSTER
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/bin/images
[ -x /usr/bin/curl ] && [ -x /usr/bin/python3 ] && command -v zip >/dev/null ||
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq curl python3 zip ca-certificates; } >&2

version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python=$(readlink -f /usr/bin/python3)
stdlib=/usr/lib/python$version
# The standard library as one file, of which Python reads modules.
library=$out/python.zip
rm -f "$library"
(cd "$stdlib" && find . -name '*.py' -not -path './test/*' -not -path './idlelib/*' -not -path './lib2to3/*' -not -path './tkinter/*' | sort | TZ=UTC zip -q -X "$library" -@)

modules=$(ls "$stdlib"/lib-dynload/*.so)
args=()
for file in $(for f in /usr/bin/curl "$python" $modules; do ldd "$f" | grep -o '/[^ ]*'; done | sort -u); do
  args+=(--file "$(readlink -f "$file")=$file:0755")
done
for module in $modules; do args+=(--file "$module=$module:0755"); done
args+=(--file "/usr/bin/curl=/usr/bin/curl:0755" --file "$python=/usr/bin/python3:0755"
  --file "$library=/usr/lib/python${version/./}.zip:0644" --file "$stdlib/os.py=$stdlib/os.py:0644")
args+=(--file "$out/everything-server=/everything-server:0755" --file "$out/toolbox=/toolbox:0755")
echo "CLIENTS_IMAGE=$(bin/localcluster load --name "$1" --user 65532:65532 clients:dev --entrypoint /everything-server "${args[@]}")"
