# A front for Meson: every target prepares what it needs, so each works on a fresh Debian 12 machine as root.
BUILD ?= build
MESON_OPTIONS ?=

.PHONY: all build deps demo check bench scoreboard fuzz coverage lab arm64 fresh install asan tsan clean

all: build

deps:
	@tools/install-deps.sh build check

$(BUILD)/build.ninja: | deps
	meson setup $(BUILD) $(MESON_OPTIONS)

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# Builds and passes all tests; ends with "N passed, N failed, N skipped".
check: build
	@tools/run-tests.sh $(BUILD)

# A real guest, snapshotted, packed and restored three ways; needs no other server.
demo:
	@tools/install-deps.sh build demo
	@$(MAKE) --no-print-directory build
	@examples/demo/run.sh $(BUILD)

# All benchmarks, or one: make bench BENCH=fault.  JSON=file appends one object a figure.
bench:
	@tools/install-deps.sh build demo bench
	@$(MAKE) --no-print-directory build
	@bench/run.sh $(BUILD) "$(BENCH)"

# What is survived, and how often it was tried (doc/reliability.md); or one line of it: make scoreboard ONLY=name TRIALS=n.
# JSON=file appends one object a line.  All of it takes about an hour.
scoreboard: build
	@tests/scoreboard/scoreboard.py $(abspath $(BUILD)) $(ONLY)

# Each fuzz target for FUZZ_SECONDS (default 60).
fuzz: deps
	@fuzz/run.sh

# Line coverage of what reads bytes of others: by the inputs of the fuzz targets, and by all tests.
coverage: deps
	@fuzz/coverage.sh tests

# Tests that need a guest with another kernel.
lab:
	@tools/install-deps.sh build check demo
	@lab/run.sh

# Builds for arm64, and what of its tests an emulated process can run.
arm64:
	@tools/install-deps.sh build check arm64
	@tools/arm64.sh $(BUILD)-arm64

# make check in a fresh Debian 12 tree that has nothing but make.
fresh:
	@tools/install-deps.sh demo
	@tools/try-fresh.sh check

asan tsan: deps
	@tools/run-sanitized.sh $@

install: build
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-arm64 build-lab build-asan build-tsan build-fuzz build-coverage
