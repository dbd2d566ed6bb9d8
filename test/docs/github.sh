#!/usr/bin/env bash
# The server github in the namespace that $NAMESPACE names, of which many pages tell: the sample under that name.
set -euo pipefail
cd "$(dirname "$0")/../.."
kubectl create namespace "$NAMESPACE"
kubectl label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted
sed -e "s#image: everything-server#image: $TESTBED_IMAGE#" -e 's/^  name: everything$/  name: github/' -e 's/name: everything, key/name: github, key/; s/name: everything, keys/name: github, keys/' \
  -e 's#path: /}#path: /mcp}#' config/samples/everything.yaml | kubectl apply -f -
kubectl wait -n "$NAMESPACE" --for=condition=Ready mcpserver/github --timeout=180s
