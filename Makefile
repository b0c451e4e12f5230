# Everything one does with Rollcall. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run test bench build check-go

GO ?= go

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## run one instance in development mode, with Redis in the same process
	@exec ./rollcall

build: check-go ## build the one binary, ./rollcall
	@$(GO) build -o rollcall ./app

test: check-go ## install what the tests need (on Debian, as root) and run them all
	@GO=$(GO) ./.ci/install
	@$(GO) vet ./...
	@$(GO) test -race -count=1 -timeout 20m ./...

bench: build ## measure speed and memory, and print the table of the README
	@GO=$(GO) ./.ci/install
	@$(GO) run ./bench

check-go:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer from go.dev/dl" >&2; exit 1; }
