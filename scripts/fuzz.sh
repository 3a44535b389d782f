#!/bin/sh
# Runs every fuzz target, or those named, for SECONDS each (60 unless told otherwise).
# usage: scripts/fuzz.sh [SECONDS [TARGET...]]
# Needs cargo-fuzz (cargo install cargo-fuzz) and a nightly toolchain, for the address sanitizer.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target; do
    echo "fuzzing $target for $seconds s" >&2
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    # New inputs go to the first directory.
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
done
