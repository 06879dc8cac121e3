# Two commands are all that a new machine needs: "make up" and "make test". Both install what they need.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/skiff-sh/skiff/internal/version.Build=$(VERSION) \
	-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36
GOBUILD  := CGO_ENABLED=0 $(GO) build -trimpath
ASSETS   := node/runtime/assets
PACKAGES := runc iproute2 nftables busybox-static ca-certificates
FOCUS    ?= \[Conformance\]
PROCS    ?= 4

.PHONY: up down build test unit stories lint bench conformance generate tools examples clean help

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: ## install the system's packages that Skiff and its tests use
	@command -v $(GO) >/dev/null || { echo "Go is missing: install the version that go.mod names, from https://go.dev/dl" >&2; exit 1; }
	@./hack/install $(PACKAGES)

build: ## leave a static bin/skiff
	@mkdir -p bin
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o $(ASSETS)/skiff-shim ./cmd/skiff-shim
	$(GOBUILD) -ldflags "-s -w" -o $(ASSETS)/skiff-pause ./cmd/skiff-pause
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o bin/skiff ./cmd/skiff

up: tools build examples ## install, build, start a cluster, run the example application
	@./hack/up

down: ## stop the cluster; containers keep running (bin/skiff down --purge removes every trace)
	@bin/skiff down

examples: build ## pack the example application's images
	@./examples/build.sh

test: tools build examples lint unit stories ## everything that CI runs

unit:
	$(GO) test ./...

stories: ## scripts against a real cluster of their own
	SKIFF=$(CURDIR)/bin/skiff $(GO) test -count=1 -timeout 20m -tags stories ./test/script

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: ## Go benchmarks, in processor time and bytes for each operation
	$(GO) test -run '^$$' -bench . -benchmem ./...

conformance: build ## upstream's suite against the running cluster: make conformance FOCUS='\[sig-node\].*Secrets'
	@./hack/install gcc make bzip2 libc6-dev
	cd test/conformance && $(GO) run . -procs $(PROCS) -focus '$(FOCUS)'

generate: ## the OpenAPI documents, from the types
	$(GO) generate ./api/...

clean:
	rm -rf bin test/conformance/out $(ASSETS)/skiff-*
