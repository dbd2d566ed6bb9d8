# Every target that has a line behind ## is in `make help`.
SHELL := /usr/bin/env bash -o pipefail
.DEFAULT_GOAL := help

# The tools are pinned in hack/tools/go.mod; go caches what it builds of them.
TOOL = go tool -modfile=hack/tools/go.mod
MODULES = . hack/localcluster hack/release test/images test/judges test/credentials test/gateway test/observability test/gitops

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Bring a cluster up, run an MCP server on it, call it (DEMO_CONTEXT=name: on your own cluster)
	hack/demo.sh

.PHONY: test
test: ## Unit, golden, CEL and controller tests, on a real API server; needs no root
	hack/test.sh

.PHONY: test-e2e
test-e2e: ## End-to-end tests on a local cluster of their own; needs root on Linux
	hack/e2e.sh

.PHONY: test-flux
test-flux: ## Flux's own controllers sync the example repository (CLUSTER=name of a local cluster that runs the operator, SERVER_IMAGE=)
	test/flux/run.sh $(CLUSTER)

.PHONY: bench
bench: ## 500 and 2,000 servers beside the floor, on fresh API servers
	go run ./test/bench

.PHONY: bench-egress
bench-egress: ## The egress proxy beside squid, tinyproxy and a bare proxy; needs root on Linux
	go run ./test/bench-egress

.PHONY: bench-gateway
bench-gateway: ## The gateway beside a bare reverse proxy, and stdio through it beside stdio directly
	go run ./test/bench-gateway

.PHONY: test-gateway-real
test-gateway-real: ## Real servers and clients, directly and through the gateway: every byte that they exchange is compared; needs npm (CLUSTER=name: in pods of that local cluster)
	$(if $(CLUSTER),test/gateway/pods.sh $(CLUSTER),test/gateway/run.sh)

.PHONY: test-conformance
test-conformance: ## The MCP conformance suite, directly and through the gateway; needs npm (CLUSTER=name: in pods of that local cluster)
	$(if $(CLUSTER),test/conformance/cluster.sh $(CLUSTER),test/conformance/gateway.sh)

.PHONY: load-gateway
load-gateway: ## A thousand sessions for five minutes, with clients and servers killed at random (DURATION=, SESSIONS=)
	go run ./test/load-gateway -duration=$(or $(DURATION),5m) -sessions=$(or $(SESSIONS),1000)

.PHONY: generate
generate: ## Write all that is generated: deep copies, apply configurations, CRDs, RBAC, gitleaks' rules, the charts' common part
	$(TOOL) controller-gen object applyconfiguration paths=./api/...
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(TOOL) controller-gen rbac:roleName=mcp-warden paths=./controllers/... output:rbac:dir=config/rbac
	go -C test/credentials run ./generate $(CURDIR)/internal/credentials/gitleaks/rules.go
	$(TOOL) kustomize build config/default | go run ./hack/charts

.PHONY: golden
golden: ## Write the golden files of plan, status and cli anew, docs/controls.md, docs/metrics.md, and the tables of fields in docs/
	go test ./internal/plan ./internal/status ./internal/compliance ./internal/cli -update
	go test ./test/docs -run '^TestFieldsAreListed$$' -update
	go -C test/observability test -run TestDocument . -update

.PHONY: lint
lint: ## Format, vet and lint every module
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && go tool -modfile=$(CURDIR)/hack/tools/go.mod golangci-lint run --config=$(CURDIR)/.golangci.yml ./...) || exit 1; done

.PHONY: verify
verify: ## Fail if anything generated is not up to date, or anything does not lint
	hack/verify.sh

.PHONY: build
build: ## Build the operator and its components into bin/ (VERSION=v0.1.0 stamps them)
	VERSION=$(VERSION) hack/build.sh bin/ ./cmd/...

.PHONY: image
image: ## Build the operator's image with a container engine (IMG=name:tag)
	$${CONTAINER_TOOL:-docker} build --build-arg VERSION=$${VERSION:-dev} -t $${IMG:-mcp-warden:dev} .

.PHONY: image-push
image-push: ## Build the operator's image for amd64 and arm64 with no container engine, push it, print it by digest (IMG=host/name:tag, VERSION=)
	@hack/image.sh --push $(IMG)

.PHONY: image-tarball
image-tarball: ## The same, as an OCI layout in dist/ (IMG=host/name:tag, VERSION=)
	@hack/image.sh --tarball dist/image.tar $(IMG)

.PHONY: dist
dist: ## Write what a release consists of into dist/ (IMG=the image, by digest best of all; VERSION=)
	@hack/dist.sh

.PHONY: reproducible
reproducible: ## Make a release twice, in two folders; fail where a byte differs
	hack/reproducible.sh

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what ships, in the newest Go vulnerability database (GOVULNDB= names another)
	hack/vuln.sh

.PHONY: install
install: ## Install the operator (IMG=reference; NAMESPACES=a,b limits it) into the cluster of the current kubectl context
	@[ -n "$(IMG)" ] || { echo "make install: set IMG to an image that the cluster can pull"; exit 1; }
	hack/install.sh --namespaces=$(NAMESPACES) $(IMG) kubectl

.PHONY: uninstall
uninstall: ## Remove the operator, the kinds and every MCPServer from the cluster of the current kubectl context
	kubectl delete --ignore-not-found -k config/default
	kubectl delete rolebindings,roles --all-namespaces -l mcpwarden.io/limited-install

.PHONY: cluster-down
cluster-down: ## Take down the local cluster that the demo left
	@go -C hack/localcluster run . down --name demo
	@go -C hack/localcluster run . down --name demo-control-plane

.PHONY: clean
clean: ## Remove what was built in this folder
	rm -rf bin dist
