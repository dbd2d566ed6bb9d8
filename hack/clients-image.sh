#!/usr/bin/env bash
# Makes images of programs as people run them, for the end-to-end tests, loads them into a local cluster
# and prints a NAME=reference line for each, by digest: the same files give the same one.
#   hack/clients-image.sh CLUSTER      after hack/images.sh
# CLIENTS_IMAGE is the tests' server with curl and Python beside it, of the files of Debian's packages.
# NODE_IMAGE is Node with the MCP project's own server for it, of npm's packages as test/images/node pins them.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=$1
out=$PWD/bin/images
missing=()
need() { [ -x "$1" ] || missing+=("${@:2}"); } # a program, and the packages that it comes in
need /usr/bin/curl curl ca-certificates
need /usr/bin/python3 python3
need /usr/bin/zip zip
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} = 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2

libraries() { # PROGRAM...: the shared libraries that they need, as localcluster load takes them
  ldd "$@" | grep -o '/[^ ]* (' | tr -d ' (' | sort -u | while read -r file; do
    echo "--file=$(readlink -f "$file")=$file:0755"
  done
}
load() { # VARIABLE, then what localcluster load takes
  local variable=$1
  shift
  echo "$variable=$(bin/localcluster load --name "$cluster" --user 65532:65532 "$@" --file="$out/toolbox=/toolbox:0755")"
}

version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python=$(readlink -f /usr/bin/python3)
stdlib=/usr/lib/python$version
# The standard library as one file, of which Python reads modules.
library=$out/python.zip
rm -f "$library"
(cd "$stdlib" && find . -name '*.py' -not -path './test/*' -not -path './idlelib/*' -not -path './lib2to3/*' -not -path './tkinter/*' | sort | TZ=UTC zip -q -X "$library" -@)
files=$(libraries /usr/bin/curl "$python" "$stdlib"/lib-dynload/*.so && find "$stdlib/lib-dynload" -name '*.so' -printf '--file=%p=%p:0755\n')
mapfile -t files <<<"$files"
load CLIENTS_IMAGE clients:dev --entrypoint /everything-server "${files[@]}" \
  --file="/usr/bin/curl=/usr/bin/curl:0755" --file="$python=/usr/bin/python3:0755" --file="$stdlib/os.py=$stdlib/os.py:0644" \
  --file="$library=/usr/lib/python${version/./}.zip:0644" --file="$out/everything-server=/everything-server:0755"

packages=$out/node
if ! cmp -s test/images/node/package-lock.json "$packages/installed"; then
  rm -rf "$packages"
  mkdir -p "$packages"
  cp test/images/node/package.json test/images/node/package-lock.json "$packages/"
  npm ci --prefix "$packages" --ignore-scripts --omit=dev --no-audit --no-fund >&2
  cp test/images/node/package-lock.json "$packages/installed"
fi
modules=$packages/node_modules
node=$(echo "$modules"/node-linux-*/bin/node)
server=@modelcontextprotocol/server-everything/dist
files=$(libraries "$node" && cd "$modules" && find . \( -name '*.js' -o -name '*.cjs' -o -name '*.mjs' -o -name '*.json' -o -path "./$server/docs/*" \) \
  -not -path './node-linux-*' -type f -printf "--file=$modules/%P=/app/node_modules/%P:0644\n")
mapfile -t files <<<"$files"
load NODE_IMAGE everything-server-node:dev --entrypoint "/usr/bin/node,/app/node_modules/$server/index.js,streamableHttp" \
  --file="$node=/usr/bin/node:0755" "${files[@]}"
