# Works on a fresh Debian or Ubuntu with Go: what else is needed is installed by apt, as root or through sudo.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## Start a local server with a PostgreSQL of its own; flags: make run ARGS='--listen 127.0.0.1:9000'
	@scripts/install-postgres
	@exec bin/rolecall dev $(ARGS)

# The version is given, and not left to Go's own look at git, which fails in a tree that another user owns.
.PHONY: build
build: ## Build bin/rolecall
	@echo 'building bin/rolecall $(VERSION)'
	@go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/rolecall ./cmd/rolecall

# The tests of e2e run the built program, of whose sources Go's test cache knows nothing. Where no package is named,
# go test keeps no cache, and shows what the tests print: what they have measured.
.PHONY: test
test: lint ## Check and test everything, with the race detector
	@scripts/install-postgres
	@scripts/install-gcc
	go test -race ./...
	cd e2e && go test -race

.PHONY: lint
lint: ## Check formatting, and run vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:" $$unformatted >&2; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	staticcheck=$$(go tool -n staticcheck) && cd e2e && go vet && "$$staticcheck"

.PHONY: bench
bench: ## Run the benchmarks
	@scripts/install-postgres
	go test -run '^$$' -bench . ./...

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
