.DEFAULT_GOAL := help
SHELL := /bin/bash
# nomsgpack leaves out a codec of gin's that nothing uses here, and that takes long to compile.
export GOFLAGS ?= -buildvcs=false -tags=nomsgpack
export PATH := $(CURDIR)/.tools/go/bin:$(PATH)
COMMANDS := $(notdir $(wildcard cmd/*))

help: ## list what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

run: go ## build standalone, chdb and tideline, and start standalone
	@scripts/build standalone chdb tideline
	@exec bin/standalone

chdb: ## install the ClickHouse engine (530 MB): standalone archives with it from its next start on
	@scripts/install-chdb

build: go ## build every command into bin/
	@scripts/build $(COMMANDS)

test: go ## install the real servers, and run every check and every test against them
	scripts/install-servers
	scripts/install-schemathesis
	$(MAKE) --no-print-directory lint
	TIDELINE_REQUIRE_SERVERS=1 go test -race -timeout 30m $$(go list ./... | grep -vE '/test/(fault|bench)$$')
	TIDELINE_REQUIRE_SERVERS=1 go test -race -timeout 30m ./test/fault

fault: go ## break everything on purpose, on a large evening (half an hour); FAULT_SEED=n, and RUN=name for one of them
	scripts/install-servers
	FAULT=full TIDELINE_REQUIRE_SERVERS=1 go test -count=1 -v -timeout 3h -run '$(RUN)' ./test/fault

bench: go ## measure every cell against its floor (a quarter of an hour; CELL=2 for one, ON=cluster for one platform, SHORT=1 to see only that they work)
	scripts/install-servers
	BENCH=$(if $(SHORT),short,full) BENCH_ON=$(ON) go test -count=1 -timeout 90m -v -run 'TestBench/$(CELL)' ./test/bench

test-fast: go ## run the tests that need no server and no race detector
	go test -short ./...

# Go fuzzes one function at a time; each is found by its name. What one finds stays in the testdata of its package, and the
# others are run all the same.
FUZZTIME ?= 30s
FUZZWORKERS ?= 2
fuzz: go ## run every fuzz test for a while (FUZZTIME=30s each)
	@failed=""; for found in $$(grep -rhoE --include='*_test.go' -H '^func Fuzz[A-Za-z0-9_]*' cmd docker internal pkg schemas test | sed 's/:func /:/' | sort -u); do \
		dir=$$(dirname "$${found%%:*}"); name=$${found##*:}; echo "./$$dir $$name"; \
		go test "./$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -parallel $(FUZZWORKERS) || failed="$$failed $$dir/$$name"; \
	done; test -z "$$failed" || { echo "these failed:$$failed"; exit 1; }

lint: go ## vet, linters, format, the Kafka contract, the documents, the notices and known vulnerabilities
	go vet ./...
	go tool -modfile=tools/lint/go.mod golangci-lint run ./...
	@test -z "$$(gofmt -l cmd docker internal pkg schemas test)" || { gofmt -l cmd docker internal pkg schemas test; echo "these are not formatted"; exit 1; }
	scripts/check-wire
	scripts/check-documents
	scripts/notices -check
	scripts/check-vulnerabilities

generate: go ## generate the code of the wire format
	cd schemas/wire && go tool -modfile=$(CURDIR)/tools/go.mod buf generate

notices: go ## write THIRD_PARTY_NOTICES.md again, after modules have changed
	scripts/notices

clean: ## remove what was built; data and installed servers stay
	rm -rf bin

go:
	@scripts/install-go

.PHONY: help run chdb build test fault bench test-fast fuzz lint generate notices clean go
