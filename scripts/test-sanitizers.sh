#!/usr/bin/env bash
# The C and C++ tests under AddressSanitizer with LeakSanitizer, and the ones with threads under ThreadSanitizer.
# usage: scripts/test-sanitizers.sh [address] [thread]
# The Rust code is instrumented too. For threads so is Rust's standard library: its locks and reference counts are
# what orders the library's memory accesses, and a runtime that cannot see them would report races that are none.
# CARAT_TEST_MODEL names the real model; the cases of the suite of all languages that need it are left out without it.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
triple=x86_64-unknown-linux-gnu
data=$PWD/tests/data
. scripts/checks.sh

# Builds the static library for a sanitizer: NAME, then what cargo needs beyond the usual.
library() {
    local name=$1
    shift
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$name -Cforce-frame-pointers=yes" cargo rustc --quiet -p carat --lib \
        --features capi --profile dev --target $triple --target-dir "$target/$name" --crate-type staticlib "$@"
}

# Builds a test program for a sanitizer, links the runtime that Rust has, and runs it: NAME SOURCE ARGUMENTS...
run() {
    local name=$1 source=$2 program compiler
    shift 2
    program=$target/$name/$(basename "$source").test
    case $source in *.cpp) compiler="c++ -std=c++17" ;; *) compiler="cc -std=c99" ;; esac
    # gcc instruments; the runtime is Rust's, as there can be one only, and its interface is the same.
    $compiler -fsanitize="$name" -fno-omit-frame-pointer -O1 -g -I include -I tests/c -c "$source" -o "$program.o"
    c++ "$program.o" "$target/$name/$triple/debug/libcarat.a" -Wl,--whole-archive "$runtime" \
        -Wl,--no-whole-archive -rdynamic -lpthread -ldl -lm -lrt -lresolv -ljansson -o "$program"
    local log=$program.log
    (cd "$target/$name" && "$program" "$@") 2>&1 | tee "$log" || true
    add_counts "$log" "$source under the $name sanitizer"
    check "the $name sanitizer finds nothing in $source" eval "! grep -E '(Address|Leak|Thread)Sanitizer' '$log'"
}

# The runtime of a sanitizer that came with a Rust tool chain.
runtime_of() {
    ls "$(rustc --print sysroot)/lib/rustlib/$triple/lib/"librustc-*_rt."$1".a
}

for name in "${@:-address}"; do
    case $name in
    address)
        runtime=$(runtime_of asan)
        library address
        export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
        for source in tests/c/{api,misuse,conformance}.c tests/c/{cpp,conformance}.cpp; do
            run address "$source" "$data"
        done
        ;;
    thread)
        runtime=$(runtime_of tsan)
        # The compiler whose standard library comes as source.
        toolchain=$(scripts/cross-toolchain.sh)
        (eval "$toolchain"; library thread -Zbuild-std=std,panic_unwind)
        run thread tests/c/misuse.c "$data"
        ;;
    *)
        echo "usage: scripts/test-sanitizers.sh [address] [thread]" >&2
        exit 2
        ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
