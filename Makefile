# Clary's front door. `make help` lists what there is.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: replay bench-cold engines help demo test race lint generate bench bench-ab bench-autoscale bench-inputs bench-exec bench-fleet bench-models bench-sched bench-serve bench-study bench-tune bench-sweep microbench fuzz e2e chaos build install release setup shim

# The version comes from git where there is a checkout; an unpacked archive is "dev".
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 5
E2E_PARALLEL ?= 3
GO_LDFLAGS := -s -w -X github.com/clary-ml/clary/internal/version.version=$(VERSION)
SHIM := agent/runtime/shimbin/embedded/clary-shim

export CGO_ENABLED ?= 1
# NVIDIA's header marks old calls that its own Go binding still names.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
# A checkout that belongs to another user is no reason to fail.
export GOFLAGS := -buildvcs=false $(GOFLAGS)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## build, start a cluster with TLS on this machine, train on digits, show it, clean up
	@test/demo.sh

test: setup shim ## run all tests
	go test ./...

race: setup shim ## run all tests with the race detector
	go test -race ./...

lint: setup ## gofumpt, go vet, staticcheck
	@internal/tools/lint.sh

generate: ## regenerate the protobuf code
	@internal/tools/generate.sh

bench: build ## measure a cluster of processes and the trainer on this machine, as in docs/performance.md
	@test/bench.sh

bench-inputs: build ## measure 2 GiB of inputs in every mode, as in docs/performance.md (needs root)
	@test/inputs.sh

bench-exec: build ## measure starts, bursts, logs and memory of tasks, as in docs/performance.md (needs root)
	@internal/tools/setup.sh python net engines
	@test/exec.sh

bench-tune: build ## measure the tuner beside Optuna, Ax, HEBO and SMAC, as in docs/performance.md (TUNE_TABLES=FOLDER adds tables)
	@internal/tools/setup.sh python
	@test/tune.sh

bench-study: build ## fill a study with a million results, and measure it, as in docs/performance.md (half an hour)
	@test/study.sh

bench-sweep: build ## measure sweeps of the digits network that stop early, as in docs/performance.md
	@internal/tools/setup.sh python
	@test/sweep.sh

bench-models: build ## measure the model server beside FastAPI with PyTorch (needs wrk), batch transform beside one process of its scorer, and steps on 5 GB
	@test/models.sh
	@test/transform.sh
	@test/steps.sh

bench-ab: setup ## measure by simulation how often an A/B experiment is wrong and how soon it ends, as in docs/performance.md
	@go run ./test/ab

bench-autoscale: setup ## play drawn load against scaled and fixed fleets in simulated time, as in docs/performance.md
	@go run ./test/autoscale

bench-sched: build ## measure scheduling: decisions, through Raft with a simulated fleet, as in docs/performance.md
	@internal/tools/setup.sh slurm
	@test/sched.sh

bench-fleet: build ## measure three coordinators with 2,000 simulated agents, a leader change, and a start with 100,000 jobs, as in docs/performance.md
	@test/fleet.sh

bench-serve: build ## measure the router beside nginx and HAProxy on this machine, as in docs/performance.md
	@internal/tools/setup.sh serve
	@test/serve.sh

replay: setup ## replay published scheduling experiments and print our figures beside theirs (CLARY_TRACES names the traces)
	@test/replay.sh

microbench: setup shim ## run the benchmarks of all packages
	go test -run '^$$' -bench . -benchmem ./...

fuzz: setup ## run each fuzz target for FUZZ_SECONDS (5), and property tests on RAPID_CHECKS draws (1000)
	@internal/tools/fuzz.sh $(FUZZ_SECONDS)

engines: setup ## test containers on a Docker and a Podman of the tests' own
	@internal/tools/setup.sh engines net
	CLARY_TEST_ENGINES=1 go test -count=1 -timeout 10m ./agent/runtime/container/...

e2e: build ## run the end-to-end tests on real processes, E2E_PARALLEL (3) at a time
	@internal/tools/setup.sh python torch net engines deploy
	CLARY_TEST_ENGINES=1 CLARY_BIN=$(CURDIR)/bin/clary go test -count=1 -timeout 40m -parallel $(E2E_PARALLEL) ./test/e2e/... ./test/rubbish/...

bench-cold: build ## measure cold starts of an endpoint without replicas, part by part, as in docs/performance.md
	CLARY_BIN=$(CURDIR)/bin/clary go test -count=1 -run TestAnEndpointWithoutReplicasAnswers -v ./test/e2e/ | grep 'ed to answered\|cold start\|FAIL\|ok'

chaos: setup shim ## break real processes and a Docker in ways drawn from SEED (1), and count what is lost or left; MINUTES=6 breaks a cluster for so long
	@internal/tools/setup.sh engines net
	@go run ./test/chaos/clock .bin/clock
	go build -overlay .bin/clock/overlay.json -ldflags '$(GO_LDFLAGS)' -o bin/clary-chaos ./cmd/clary
	CLARY_TEST_ENGINES=1 CLARY_BIN=$(CURDIR)/bin/clary-chaos CLARY_CHAOS_SEED=$(SEED) CLARY_CHAOS_MINUTES=$(MINUTES) CLARY_CHAOS_OUT=$(CURDIR)/bin/chaos-$(or $(SEED),1) \
		go test -count=1 -timeout 120m -v $(if $(MINUTES),-run WhateverBreaks) ./test/chaos/

build: setup shim ## build bin/clary
	go build -ldflags '$(GO_LDFLAGS)' -o bin/clary ./cmd/clary

install: build ## install bin/clary to PREFIX/bin (/usr/local)
	install -D -m 0755 bin/clary $(DESTDIR)$(PREFIX)/bin/clary

release: GOFLAGS += -trimpath
release: build ## make bin/release/clary-VERSION-PLATFORM.tar.gz, to install from without a network; the same sources give the same bytes
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)} go run ./deploy/release

# What a build needs besides Go: a C compiler, installed by apt-get if it is missing.
setup:
	@internal/tools/setup.sh cc

# The shim is a static program of its own that the binary carries inside.
shim:
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(SHIM) ./cmd/clary-shim
