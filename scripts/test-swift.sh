#!/usr/bin/env bash
# Tests of the Swift package, in a folder with Debian 13 (Debian 12 has no Swift): see scripts/in-debian13.sh.
# usage: scripts/test-swift.sh [release|dev] (of the library; dev builds faster and runs slower)
# CARAT_TEST_MODEL names the real model: without it, what needs it is left out. CARAT_CONFORMANCE_REPORT names a file for
# the results of tests/conformance, conformance/swift in the target folder unless it is set.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARAT_PROFILE=${1:-release}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
export CARGO_TARGET_DIR=$target
out=$target/swift
mkdir -p "$out"
. scripts/checks.sh

# The static library alone, so that the programs run wherever they are.
scripts/install.sh "$out/installed"
rm -f "$out"/installed/lib/libcarat.so*
export PKG_CONFIG_PATH=$out/installed/lib/pkgconfig

# The report is written where the folder's programs can, then copied to where it was asked for, or scripts/bindings.py
# looks for it.
report=${CARAT_CONFORMANCE_REPORT:-$target/conformance/swift}
mkdir -p "$target/conformance"
export CARAT_CONFORMANCE_REPORT=$out/conformance.txt
rm -f "$CARAT_CONFORMANCE_REPORT"

in_debian13() {
    scripts/in-debian13.sh "$target/swift-root" ca-certificates,swiftlang,libstdc++-14-dev,libc6-dev "$@"
}
options=(--package-path bindings/swift --scratch-path "$out/build" --disable-sandbox)

# (That every function of carat.h is used, scripts/bindings.py looks at.)
numbers() {
    local name missing=0
    for name in $(sed -n 's/^#define \(CARAT_[A-Z0-9_]*\) .*/\1/p' include/carat.h); do
        [ "$name" = CARAT_OK ] || grep -qw "$name" -r bindings/swift/Sources/Carat || { echo "$name is missing"; missing=1; }
    done
    return $missing
}
check "every number of carat.h has a name" numbers
check "the header is that of the repository" cmp include/carat.h bindings/swift/Sources/CCarat/carat.h
check "the privacy manifest says what a manifest must" python3 - <<'END'
import plistlib
with open("bindings/swift/Sources/Carat/PrivacyInfo.xcprivacy", "rb") as f:
    m = plistlib.load(f)
assert m["NSPrivacyTracking"] is False and m["NSPrivacyTrackingDomains"] == [] == m["NSPrivacyCollectedDataTypes"], m
[used] = m["NSPrivacyAccessedAPITypes"]
assert used["NSPrivacyAccessedAPIType"] == "NSPrivacyAccessedAPICategoryFileTimestamp", used
assert used["NSPrivacyAccessedAPITypeReasons"] == ["C617.1", "3B52.1"], used
END

in_debian13 swift build "${options[@]}" --build-tests -Xswiftc -warnings-as-errors
log=$out/test.log
status=0
in_debian13 swift test "${options[@]}" --skip-build -Xswiftc -warnings-as-errors 2>&1 | tee "$log" || status=1
# The last of these lines is the sum; a skipped test is neither.
read -r tests skipped failures <<<"$(sed -nE \
    -e 's/.*Executed ([0-9]+) tests?, with ([0-9]+) tests? skipped and ([0-9]+) failures?.*/\1 \2 \3/p' \
    -e 's/.*Executed ([0-9]+) tests?, with ([0-9]+) failures?.*/\1 0 \2/p' "$log" | tail -1)"
if [ -z "${tests:-}" ]; then
    failed=$((failed + 1))
    echo "FAILED the tests ended before their end"
else
    # Failures are counted by assertion: the tests that failed are those that say so at their end.
    bad=$(grep -cE "^Test Case '.*' failed \(" "$log" || true)
    [ "$bad" -gt 0 ] || bad=$([ "$status" -eq 0 ] && echo 0 || echo 1)
    passed=$((passed + tests - skipped - bad)) failed=$((failed + bad))
fi

# The example of the README, and what streaming costs. Optimized, as programs are.
in_debian13 swift build "${options[@]}" -c release -Xswiftc -warnings-as-errors
example() {
    diff <(sed -n '/^import Carat/,/^```/p' bindings/swift/README.md | sed '/^```/,$d; s/"gemma.gguf"/CommandLine.arguments[1]/') \
        <(sed '$d' bindings/swift/Examples/Hello/main.swift) &&
        in_debian13 "$out/build/release/Hello" "${CARAT_TEST_MODEL:-tests/data/tiny-gemma3.gguf}" >"$out/hello.txt" &&
        [ -s "$out/hello.txt" ]
}
check "the example of the README runs" example
in_debian13 "$out/build/release/StreamBench" tests/data/tiny-gemma3.gguf | tee "$out/bench.txt"
[ ! -e "$CARAT_CONFORMANCE_REPORT" ] || cp "$CARAT_CONFORMANCE_REPORT" "$report"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
