#!/usr/bin/env bash
# Runs every test and says at the end how many there were.
# usage: scripts/test.sh [CARGO TEST OPTIONS...]
# The real model is taken from CARAT_TEST_MODEL, else fetched to the place where `carat run` looks for it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CARAT_TEST_MODEL:-}" ]; then
    CARAT_TEST_MODEL=$(cargo run -p carat-cli "$@" --quiet -- pull)
    export CARAT_TEST_MODEL
fi
echo "testing with $CARAT_TEST_MODEL" >&2

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --no-fail-fast --features capi "$@" 2>&1 | tee "$log" || status=$?
scripts/test-c.sh 2>&1 | tee -a "$log" || status=1
awk '/^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") ignored += $(i - 1)
        }
    }
    # The C tests, whose last line is the sum of theirs.
    /^[0-9]+ passed, [0-9]+ failed$/ { c_passed = $1; c_failed = $3 }
    END { printf "%d passed, %d failed, %d skipped\n", passed + c_passed, failed + c_failed, ignored }' "$log"
exit "$status"
