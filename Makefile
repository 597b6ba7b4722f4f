# Works on a fresh Debian or Ubuntu with Go: what else is needed is installed by apt, as root or through sudo.

VERSION := $(shell scripts/version)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)

# The time of the commit, so that files with a time are the same in each build of it.
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# Each module is built with the versions in its own go.mod. go.work is for editors and for "go vet ./... ./e2e".
export GOWORK := off

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## Start a local server with a PostgreSQL of its own; flags: make run ARGS='--listen 127.0.0.1:9000'
	@scripts/install-postgres
	@exec bin/rolecall dev $(ARGS)

# The version is given, and not left to Go's own look at git, which fails in a tree that another user owns. Without cgo the
# machine's C compiler and library are no part of the program.
BUILD = CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)'

.PHONY: build
build: ## Build bin/rolecall
	@echo 'building bin/rolecall $(VERSION)'
	@$(BUILD) -o bin/rolecall ./cmd/rolecall

# Built elsewhere and from nothing that was compiled before.
.PHONY: reproducible
reproducible: build ## Build a second time in another folder, and compare the bytes
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && mkdir "$$dir/tree" && \
	git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read 2>/dev/null | tar -x -C "$$dir/tree" && \
	GOCACHE="$$dir/cache" $(MAKE) --no-print-directory -C "$$dir/tree" build VERSION='$(VERSION)' COMMIT='$(COMMIT)' && \
	cmp bin/rolecall "$$dir/tree/bin/rolecall" && sha256sum bin/rolecall

.PHONY: sbom
sbom: build ## Write bin/rolecall.cdx.json, what bin/rolecall is made of
	@go run ./scripts/sbom -version '$(VERSION)' bin/rolecall > bin/rolecall.cdx.json
	@echo 'wrote bin/rolecall.cdx.json'

# bin/OS-ARCHITECTURE/rolecall of each platform, and its bill of materials.
.PHONY: programs
programs:
	@for platform in $(PLATFORMS); do \
		program=bin/$$platform/rolecall && echo "building $$program $(VERSION)" && \
		GOOS=$${platform%-*} GOARCH=$${platform#*-} $(BUILD) -o $$program ./cmd/rolecall && \
		go run ./scripts/sbom -version '$(VERSION)' $$program > $$program.cdx.json || exit 1; \
	done

# For the processor of this machine, unless PLATFORMS says otherwise.
image packages: PLATFORMS ?= linux-$(shell go env GOARCH)
release: PLATFORMS ?= linux-amd64 linux-arm64 darwin-amd64 darwin-arm64

RELEASE = go build -C tools -o ../bin/release ./release && bin/release -version '$(VERSION)' -commit '$(COMMIT)' \
	-platforms '$(PLATFORMS)'

.PHONY: image
image: build programs ## Write dist/image, the container image as an OCI image layout
	@$(RELEASE) image
	@echo 'wrote dist/image'

.PHONY: packages
packages: build programs ## Write dist/rolecall…deb and dist/rolecall…rpm
	@$(RELEASE) packages
	@ls dist/*.deb dist/*.rpm

# TAG is what a workflow releases; it must be that of the version.
.PHONY: release
release: build programs ## Write dist: archives, packages, image, chart, bills of materials and checksums for four platforms
	@test '$(or $(TAG),v$(VERSION))' = 'v$(VERSION)' || { echo 'the tag $(TAG) is not that of the version $(VERSION)' >&2; exit 1; }
	@$(RELEASE) all
	@cat dist/SHA256SUMS

# The workflow of a release runs both: they need the identity of the workflow, and the token of GitHub.
.PHONY: sign
sign: ## Sign dist/SHA256SUMS, and with it all files of the release
	@cosign sign-blob --yes --bundle dist/SHA256SUMS.sigstore.json dist/SHA256SUMS

.PHONY: publish
publish: ## Publish dist as the release TAG, and its image as IMAGE
	@scripts/publish '$(TAG)' '$(IMAGE)'

# What the tests need is installed first.
.PHONY: test-programs
test-programs:
	@scripts/install-postgres
	@scripts/install-gcc
	@scripts/install-curl
	@scripts/install-pgbouncer
	@scripts/install-majors
	@scripts/install-chromium >/dev/null
	@scripts/install-axe >/dev/null

# Tests make and remove hundreds of data folders. In memory they cost a fifth of what they cost on a disk. Memory is also cheaper
# than collecting garbage, which was a sixth of all work.
IN_MEMORY := $(shell test "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 4000000 2>/dev/null && echo TMPDIR=/dev/shm)
CHEAPLY := GOTMPDIR=$${TMPDIR:-/tmp} GOGC=off GOMEMLIMIT=1GiB $(IN_MEMORY)
TEST := $(CHEAPLY) go test -vet=off -ldflags=-w -timeout 20m

# The race detector does not watch packages in which no goroutines share memory: those translate one request, or run once.
# By default it lets each program wait for a second before it ends.
PLAIN := $(addprefix rolecall/,api bench cmd/rolecall internal/adminapi internal/cfapi internal/cli internal/cli/term \
	internal/console internal/dbaas internal/localpg internal/manifest internal/rules internal/scram internal/uaa internal/vaultapi)
LONGEST_RACING := $(addprefix rolecall/internal/,pgrole dbuser fleet identity cluster)
RACING = $(filter-out rolecall/internal/compat $(PLAIN),$(shell go list ./...))

# The failures, the console and the sign-in by OAuth2 are in "make test-majors", the licenses and the SBOM in "make release-check".
NOT_IN_TEST := ^Test(Console|OAuth2)|Instant$$|^Test(Kill|Replicas|ControlDatabaseVanishes|RepeatedAfterAKill|NoFailpointIsShipped|Soak|Licenses|SBOM|Pictures)$$

# Packages wait for a part of their time, so more run at a time than there are processors. The longest begins first.
# Without debugging information the programs of the tests link in half the time. Go's test cache knows nothing of the program that
# e2e builds, and where no package is named, it is not used. A busy machine needs several times as long as an idle one, so the
# limit of time only ends what hangs.
.PHONY: test
test: lint test-programs ## Check everything, and test all packages on PostgreSQL 18
	ROLECALL_TEST_MAJOR=18 GORACE=atexit_sleep_ms=0 $(TEST) -race -p 3 -parallel 4 $(LONGEST_RACING) $(RACING)
	ROLECALL_TEST_MAJOR=18 $(TEST) -p 3 -parallel 4 rolecall/cmd/rolecall $(PLAIN)
	cd e2e && $(TEST) -parallel 6 -skip '$(NOT_IN_TEST)'

.PHONY: test-majors
test-majors: test-programs release-check ## Test on the other majors, and what "make test" leaves out
	$(CHEAPLY) scripts/test-majors

.PHONY: test-all
test-all: test-programs ## The same with every case, on every major and under each administering role
	ROLECALL_TEST_FULL=1 $(CHEAPLY) scripts/test-majors

# Go's test cache knows nothing of files outside a module, which most of these tests read. Vet would have to analyze all that
# Helm imports, half as much work as compiling it, so it omits the chart.
.PHONY: test-tools
test-tools: ## Test the packages, the image, the release, the chart, the alerts and the workflows
	@scripts/install-postgres
	@scripts/install-packaging
	cd tools && go vet $$(go list ./... | grep -v '/chart$$') && go test -count=1 -vet=off -ldflags=-w -timeout 1h ./...

# What does not change with a line of code.
.PHONY: release-check
release-check: ## Verify the modules, and check the licenses and the SBOM
	go mod verify
	cd e2e && go test -run '^Test(Licenses|SBOM)$$'

.PHONY: soak
soak: ## Keep servers under load, for an hour alone and for an hour of failures, and look for growth and losses; make soak SOAK_SECONDS=60
	@scripts/install-postgres
	cd e2e && SOAK_SECONDS=$${SOAK_SECONDS:-3600} go test -count=1 -timeout 0 -run '^(TestSoak|TestReplicas)$$'
	cd e2e && SOAK_SECONDS=1 go test -race -count=1 -timeout 0 -run 'Instant$$|^TestRepeatedAfterAKill$$'
	SOAK_SECONDS=$${SOAK_SECONDS:-600} go test -race -v -count=1 -timeout 0 -run '^TestModel$$' ./internal/dbaas
	ROLECALL_TEST_FULL=1 go test -v -count=1 -timeout 0 -run '^Test(RotationsUnderLoad|ManyLeasesEnd)$$' ./internal/dbuser

.PHONY: lint
lint: ## Check the format, and run vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:" $$unformatted >&2; exit 1; fi
	go vet ./... && go vet -tags failpoint ./internal/failpoint
	go tool staticcheck ./...
	staticcheck=$$(go tool -n staticcheck) && cd e2e && go vet && "$$staticcheck"

.PHONY: bench
bench: build ## Measure the program beside PostgreSQL and a peer; flags: make bench ARGS='-only get,list -rounds 1 -seconds 1'
	@scripts/install-postgres
	@peer=$$(scripts/install-bench-peer) && go build -buildvcs=false -o bin/bench ./bench && exec bin/bench -peer "$$peer" $(ARGS)

.PHONY: bench-quick
bench-quick: build ## Fail if a request has become slower by a factor; it takes less than three minutes
	@scripts/install-postgres
	@go build -buildvcs=false -o bin/bench ./bench && exec bin/bench -quick -json bench/quick.json $(ARGS)

# Several counts are what benchstat compares: make gobench ARGS='-count 10' >new.txt
.PHONY: gobench
gobench: ## Run the benchmarks of single functions; flags: make gobench ARGS='-count 10'
	@scripts/install-postgres
	@go test -run '^$$' -bench . -benchmem $(ARGS) ./...

.PHONY: fuzz
fuzz: ## Look for bad input, two minutes a target; flags: make fuzz FUZZTIME=20s ARGS='--write dbaas/FuzzRequest'
	@scripts/install-postgres
	@scripts/fuzz $(ARGS)

# They are of the running product: a server with the data of a company, in Chromium.
.PHONY: screenshots
screenshots: ## Write docs/pictures/console-*.png, the pages of the console
	@scripts/install-postgres
	@scripts/install-chromium >/dev/null
	@scripts/install-axe >/dev/null
	cd e2e && ROLECALL_PICTURES=../docs/pictures go test -count=1 -run '^TestPictures$$'

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist
