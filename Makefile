# Everything one does with Rollcall. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run deps test check lint chaos bench build vulncheck check-go

GO ?= go
FOR ?= 5m
SEED ?= 0
ONLY ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## run one instance in development mode, with Redis in the same process
	@exec ./rollcall

build: check-go ## build the one binary, ./rollcall
	@CGO_ENABLED=0 $(GO) build -o rollcall ./app

deps: ## install what the tests need and this machine lacks (on Debian, as root)
	@./.ci/install

# Tests mostly wait, for a lease to end or a page to load: four at a time keep two cores busy.
test: check-go deps ## run all tests, with the race detector
	@$(GO) vet ./...
	@$(GO) test -race -count=1 -timeout 20m -parallel 4 ./...

check: lint ## before each commit: lint, and the tests that start no process
	@$(GO) test -short ./...

# golangci-lint is pinned in a module file of its own, so that go.mod has only what the binary and the tests need.
# Go builds it at the first call, which takes 90 seconds on two cores.
lint: check-go ## look for mistakes that compile, and for lines that are too long
	@$(GO) tool -modfile=.ci/lint.mod golangci-lint run ./...

# FOR=5m, SEED= of a run that failed, ONLY=SIGSTOP, REDIS_URL= of your own Redis. REDIS_URL counts only on the
# command line: many environments have one that is in use.
chaos: check-go deps ## play random faults on real processes, for FOR=5m, and check everything after each
	@$(GO) test -race -count=1 -v -timeout 0 -run '^TestChaos$$' ./app -args \
		-chaos.for='$(FOR)' -chaos.seed='$(SEED)' -chaos.only='$(ONLY)' \
		$(if $(filter command,$(origin REDIS_URL)),-chaos.redis='$(REDIS_URL)')

bench: build deps ## measure speed and memory, and print the table of docs/benchmarks.md
	@$(GO) run ./bench

# Not part of the tests: it asks a data base on the network, whose answers change from day to day.
vulncheck: check-go ## look for known vulnerabilities in what the binary is made of
	@$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

check-go:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer from go.dev/dl" >&2; exit 1; }
