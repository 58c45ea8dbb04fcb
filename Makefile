# `make` alone prints what there is. Everything needs Go and nothing else, except that MySQL and MariaDB for
# the tests come as Debian packages (unpacked into the cache, no root needed); elsewhere name servers
# by LEAT_TEST_MYSQL_URL and LEAT_TEST_MARIADB_URL. Kafka, OpenSearch and a schema registry need Java 17, or are
# named by LEAT_TEST_KAFKA_URL, LEAT_TEST_OPENSEARCH_URL and LEAT_TEST_REGISTRY_URL.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The race detector needs a C compiler on most systems.
RACE ?= $(shell command -v "$$($(GO) env CC)" >/dev/null 2>&1 && echo -race)
SERVERS := bin/servers
DEMO_FLAGS ?=
BENCH_FLAGS ?=
TEST_FLAGS ?=
# Processes under -race sleep a second at their end otherwise: each package, and each leat that tests run.
export GORACE ?= atexit_sleep_ms=0
FUZZTIME ?= 10s

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/leat
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/leat ./cmd/leat

.PHONY: demo
demo: build ## a throw-away PostgreSQL, three subscribers, live rates (DEMO_FLAGS="--seconds 20")
	./bin/leat demo $(DEMO_FLAGS)

.PHONY: servers
servers: # the databases of tests and benches
	@$(GO) build -o $(SERVERS) ./internal/servers/cmd/servers

.PHONY: test
test: format servers ## everything, on real PostgreSQL, MySQL, MariaDB, Kafka and OpenSearch (TEST_FLAGS for go test)
	@[ -n "$(RACE)" ] || echo "note: no C compiler here, so the tests run without the race detector" >&2
	$(GO) vet $(RACE) ./...
	@$(SERVERS) run -- $(GO) test $(RACE) -vet=off -p 2 -timeout 11m $(TEST_FLAGS) ./... 2>&1 | tee bin/test.log || \
	  { printf '\nwhat failed (all of it: bin/test.log):\n'; grep -E '^(FAIL|panic:|WARNING: DATA RACE)|^ *--- FAIL|found unexpected goroutines' bin/test.log; exit 1; } >&2
	@$(MAKE) sim-planted

.PHONY: test-short
test-short: servers ## without the race detector and what is long
	$(SERVERS) run -postgres 17 -- $(GO) test -short $(TEST_FLAGS) ./...

DDL ?= 2000

.PHONY: test-ddl
test-ddl: servers ## DDL (2000) random changes of shape with writes on each database, SEED=… to go over one again
	LEAT_DDL=$(DDL) LEAT_SEED=$(SEED) $(SERVERS) run -postgres 18 -- $(GO) test -count=1 -timeout 0 -v ./cmd/leat/internal/reshape

KILLS ?= 50

.PHONY: test-kafka-kills
test-kafka-kills: servers ## Leat is killed KILLS (50) times while it produces to Kafka, with and without exactly_once; another client reads each event once
	LEAT_KILLS=$(KILLS) $(SERVERS) run -postgres 17 -mysql=false -mariadb=false -- $(GO) test -count=1 -timeout 0 -v -run KilledWhileProducing ./cmd/leat

SEEDS ?= 1000
SIM := $(GO) test -count=1 -timeout 0 ./pipeline/engine/simulation -run 'TestSeeds$$'

.PHONY: sim
sim: ## the whole pipeline on SEEDS (1000) seeds from FIRST (1), or one again, step by step: SEED=123
	@if [ -n "$(SEED)" ]; then $(SIM) -v -args -first $(SEED) -seeds 1 -trace; \
	else $(SIM) -v -args -first $(or $(FIRST),1) -seeds $(SEEDS); fi

.PHONY: sim-planted
sim-planted: ## each bug that is planted in the simulation is found
	$(GO) test -count=1 -tags planted ./pipeline/engine/simulation -run TestPlanted

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (10s)
	@for pkg in $$($(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do \
	  dir=$$($(GO) list -f '{{.Dir}}' "$$pkg"); \
	  for f in $$( (grep -ohE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go || true) | cut -c6-); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
	  done; \
	done

.PHONY: bench
bench: ## Leat beside the databases' own clients, on this machine (BENCH_FLAGS)
	$(GO) run ./bench $(BENCH_FLAGS)

.PHONY: bench-flow
bench-flow: ## slow, sick and many subscribers, a busy database: a table, and drawings in bench/out (BENCH_FLAGS="-quick")
	$(GO) run ./bench/flow $(BENCH_FLAGS)

.PHONY: bench-snapshot
bench-snapshot: ## snapshots: speed, what they cost others, kill -9 in the middle (BENCH_FLAGS="-quick")
	$(GO) run ./bench/snapshot $(BENCH_FLAGS)

.PHONY: bench-peers
bench-peers: ## Leat and Debezium Server from the same backlogs into the same Kafka; fetches 780 MB once (BENCH_FLAGS="-rows 200000")
	$(GO) run ./bench/peers $(BENCH_FLAGS)

.PHONY: format
format: # fails when gofmt would change a file
	@out=$$(gofmt -l .); \
	if [ -n "$$out" ]; then echo "not formatted, run gofmt -w on:" >&2; echo "$$out" >&2; exit 1; fi

.PHONY: lint
lint: format ## gofmt, go vet (here and for other systems), generated code is fresh
	$(GO) vet ./...
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./...
	tools/generate.sh --check
	clients/python/generate.sh --check

.PHONY: generate
generate: ## Go and Python code from schemas/envelope's .proto files
	tools/generate.sh
	clients/python/generate.sh

.PHONY: clean
clean: ## remove bin (the cache of servers stays: LEAT_CACHE)
	rm -rf bin
