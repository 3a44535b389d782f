#!/usr/bin/env bash
# Runs every test on emulated x86-64 processors without the newer instructions: an instruction that the run-time
# choice should not have taken ends in SIGILL.
# usage: scripts/test-old-x86.sh [CARGO TEST OPTIONS...]
# CPUS="Nehalem" runs one only. Emulation is slow: leave two hours for all three. The few tests that compute hundreds of
# tokens with the real model leave that out (CARAT_EMULATED).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname -m)" != x86_64 ]; then
    echo "test-old-x86 needs an x86-64 machine" >&2
    exit 1
fi
# Nehalem has no AVX, SandyBridge AVX only, Haswell AVX2 and FMA.
for cpu in ${CPUS:-Nehalem SandyBridge Haswell}; do
    model=$cpu
    expected=scalar
    if [ "$cpu" = Haswell ]; then
        # Without parts that user-mode emulation does not have.
        model=Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid
        expected=avx2
    fi
    echo "== $cpu, where $expected is to be chosen" >&2
    # A test compares the instruction set that is detected with the one expected.
    CARAT_EMULATED=1 CARAT_EXPECT_ISA=$expected CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $model" scripts/test.sh "$@"
done
