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

# What passes of the suite of all languages; scripts/bindings.py reads it.
reports=${CARGO_TARGET_DIR:-target}/conformance
case $reports in /*) ;; *) reports=$PWD/$reports ;; esac
mkdir -p "$reports"
# Swift's stays: its tests need root, and are no part of these.
rm -f "$reports"/{rust,c,cpp,kotlin,python}

log=$(mktemp)
trap 'rm -f "$log" "$log".*' EXIT
status=0
CARAT_CONFORMANCE_REPORT=$reports/rust cargo test --workspace --no-fail-fast --features capi "$@" 2>&1 | tee "$log" || status=$?
# The others each end with the line of their sum.
each() { # NAME COMMAND...
    local name=$1
    shift
    "$@" 2>&1 | tee "$log.$name" || status=1
    tail -1 "$log.$name" | grep -E '^[0-9]+ passed, [0-9]+ failed$' >>"$log" || status=1
}
for language in c kotlin python; do
    CARAT_CONFORMANCE_REPORT=$reports/$language each "$language" "scripts/test-$language.sh"
done
each bindings scripts/bindings.py
awk '/^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") ignored += $(i - 1)
        }
    }
    /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
