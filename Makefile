# Everything one does with Rollcall. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run test chaos bench build vulncheck check-go

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

test: check-go ## install what the tests need (on Debian, as root) and run them all
	@GO=$(GO) ./.ci/install
	@$(GO) vet ./...
	@$(GO) test -race -count=1 -timeout 20m ./...

# REDIS_URL counts only on the command line: many environments have one that is in use.
chaos: check-go ## play random faults and check everything after each: FOR=5m, SEED= of a run that failed, ONLY=SIGSTOP, REDIS_URL= of your own Redis
	@GO=$(GO) ./.ci/install
	@$(GO) test -race -count=1 -v -timeout 0 -run '^TestChaos$$' ./app -args -chaos.for='$(FOR)' -chaos.seed='$(SEED)' -chaos.only='$(ONLY)' \
		$(if $(filter command,$(origin REDIS_URL)),-chaos.redis='$(REDIS_URL)')

bench: build ## measure speed and memory, and print the table of docs/benchmarks.md
	@GO=$(GO) ./.ci/install
	@$(GO) run ./bench

# Not part of the tests: it asks a data base on the network, whose answers change from day to day.
vulncheck: check-go ## look for known vulnerabilities in what the binary is made of
	@$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

check-go:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer from go.dev/dl" >&2; exit 1; }
