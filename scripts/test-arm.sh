#!/usr/bin/env bash
# Runs the tests on emulated 64-bit ARM processors: an instruction that the run-time choice should not have taken ends in
# SIGILL.
# usage: scripts/test-arm.sh [CARGO TEST OPTIONS...]
# CPUS="max" runs one only. Emulation is some hundred times slower than hardware: it shows that results are right,
# nothing about speed. The real model answers one prompt only; where it is missing, `make test` fetches it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname -m)" != x86_64 ]; then
    echo "test-arm needs an x86-64 machine; on ARM, make test does the same natively" >&2
    exit 1
fi
environment=$(scripts/cross-toolchain.sh)
eval "$environment"
export CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu CARGO_TARGET_DIR=$CARAT_CROSS/arm
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
model=${CARAT_TEST_MODEL:-${XDG_CACHE_HOME:-$HOME/.cache}/carat/gemma-3-270m-q4_k_m.gguf}
if [ -e "$model" ]; then
    export CARAT_TEST_ONE_PROMPT=$model
else
    echo "the real model is not here: its prompt is left out" >&2
fi
# For the tests that do more with it than emulation has time for.
export CARAT_TEST_MODEL=left-out
# max has everything that qemu knows, the A76 the dot product without i8mm, and the A53 plain NEON.
for cpu in ${CPUS:-max cortex-a76 cortex-a53}; do
    case $cpu in
    max) expected=neon_i8mm ;;
    cortex-a76) expected=neon_dotprod ;;
    *) expected=neon ;;
    esac
    echo "== $cpu, where $expected is to be chosen" >&2
    # A test compares the instruction set that is detected with the one expected.
    CARAT_EMULATED=1 CARAT_EXPECT_ISA=$expected \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu" \
        scripts/test.sh "$@"
done
