# What there is: make help
SHELL := /bin/bash
PROMPT ?= The capital of France is
export PROMPT

CARGO ?= cargo
PREFIX ?= /usr/local
# The second tokenizer engine is on in every test; it needs cmake and a C++ compiler, which running does not.
TEST_FEATURES := --features sentencepiece

.DEFAULT_GOAL := help
.PHONY: help run test test-c test-kotlin android-native test-python test-swift test-old-x86 test-arm bench bindings-page header install lint licences notices test-sanitizers

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Answer PROMPT="..." with the default model, which is fetched when absent
	@scripts/setup.sh run
	@$(CARGO) build --release -p carat-cli
	@target=$${CARGO_TARGET_DIR:-target}; "$$target/release/carat" run "$$PROMPT"

test: ## Everything that is tested, with the real model, which is fetched when absent
	@scripts/setup.sh test
	@scripts/test.sh $(TEST_FEATURES)

test-c: ## The tests of the C and C++ interface alone, against an installed copy of the library
	@scripts/setup.sh test
	@scripts/test-c.sh

test-swift: ## The tests of the Swift package (bindings/swift), in a folder with Debian 13; needs root
	@scripts/setup.sh swift
	@scripts/test-swift.sh

test-python: ## The tests of the Python package alone, against its installed wheel
	@scripts/setup.sh test
	@scripts/test-python.sh

test-kotlin: ## The tests of the Kotlin binding alone, on the JVM
	@scripts/test-kotlin.sh

android-native: ## The native part of the Android library, for arm64-v8a and x86_64, checked
	@scripts/android-native.sh

install: ## Install the C library (header, static, shared, pkg-config, CMake) under PREFIX
	@scripts/install.sh "$(PREFIX)"

bindings-page: ## Write docs/bindings.md from what the last `make test` saw
	@scripts/bindings.py --write

header: ## Write include/carat.h, and what is new in it to include/carat.abi
	CARAT_BLESS=1 $(CARGO) test --quiet -p carat --features capi --test capi_header

test-old-x86: ## The same tests on emulated older processors: Nehalem, SandyBridge and Haswell
	@scripts/setup.sh old-x86
	@scripts/test-old-x86.sh $(TEST_FEATURES)

test-arm: ## The same tests on emulated 64-bit ARM processors: all there is, Cortex-A76 and Cortex-A53
	@scripts/setup.sh arm
	@scripts/test-arm.sh $(TEST_FEATURES)

bench: ## carat against ggml and ik_llama.cpp, an hour or more; BENCH="--quick" for a look. Writes docs/performance.md
	@scripts/setup.sh bench
	@scripts/bench.py $(BENCH)

lint: licences ## Formatting, clippy and rustdoc with warnings as errors, licences and advisories
	@scripts/setup.sh test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(TEST_FEATURES) --features capi -- -D warnings
	$(CARGO) clippy --workspace -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps $(TEST_FEATURES)

licences: ## Licences of all dependencies against deny.toml; advisories where cargo-deny is there
	@scripts/licences.py
	@scripts/notices.py --check

notices: ## Write THIRD-PARTY-NOTICES.txt: whose code the library contains
	@scripts/notices.py

test-sanitizers: ## The C and C++ tests under AddressSanitizer and LeakSanitizer, those with threads under ThreadSanitizer
	@scripts/setup.sh test
	@scripts/test-sanitizers.sh address thread
