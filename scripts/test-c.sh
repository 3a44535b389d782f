#!/usr/bin/env bash
# Tests of the C and C++ interface: installs the library to a folder of its own and builds programs against it.
# usage: scripts/test-c.sh [release|dev]
set -euo pipefail
cd "$(dirname "$0")/.."

export CARAT_PROFILE=${1:-release}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/c-tests
prefix=$out/installed
mkdir -p "$out"
scripts/install.sh "$prefix"
. scripts/checks.sh

# The suite of all languages has cases of the real model.
if [ -z "${CARAT_TEST_MODEL:-}" ]; then
    CARAT_TEST_MODEL=$(cargo run -p carat-cli --quiet -- pull)
    export CARAT_TEST_MODEL
fi

# Runs a test program in the folder of the tests, and adds up the counts that it prints at its end.
count() {
    local log=$out/log
    (cd "$out" && "$@") | tee "$log" || true
    add_counts "$log" "$1"
}

flags=(-Wall -Wextra -Werror -pedantic -O1 -g -I "$prefix/include" -I tests/c)
static=("$prefix/lib/libcarat.a" -lpthread -ldl -lm)
shared=(-L "$prefix/lib" -lcarat -Wl,-rpath,"$prefix/lib" -lpthread -lm)

data=$PWD/tests/data
for program in api misuse; do
    cc -std=c99 "${flags[@]}" "tests/c/$program.c" "${static[@]}" -o "$out/$program-static"
    cc -std=c99 "${flags[@]}" "tests/c/$program.c" "${shared[@]}" -o "$out/$program-shared"
    count "./$program-static" "$data"
    count "./$program-shared" "$data"
done
if [ -e tests/c/cpp.cpp ]; then
    for standard in c++17 c++20; do
        c++ -std=$standard "${flags[@]}" tests/c/cpp.cpp "${static[@]}" -o "$out/cpp"
        count ./cpp "$data"
    done
fi

# The suite of all languages; what passed goes to where scripts/bindings.py reads it.
mkdir -p "$target/conformance"
cc -std=c99 "${flags[@]}" tests/c/conformance.c "${shared[@]}" -ljansson -o "$out/conformance-c"
CARAT_CONFORMANCE_REPORT=$target/conformance/c count "./conformance-c" "$data"
c++ -std=c++17 "${flags[@]}" tests/c/conformance.cpp "${shared[@]}" -o "$out/conformance-cpp"
CARAT_CONFORMANCE_REPORT=$target/conformance/cpp count "./conformance-cpp" "$data"

so=$prefix/lib/libcarat.so
exports_only_ours() {
    local others
    others=$(nm -D --defined-only "$so" | awk '{print $3}' | grep -v '^carat_' || true)
    [ -z "$others" ] || { echo "$so exports: $others"; return 1; }
    diff <(nm -D --defined-only "$so" | awk '{print $3}' | sort) \
        <(sed -n 's/^function \(carat_[a-z0-9_]*\):.*/\1/p' include/carat.abi | sort)
}
check "the shared library exports the header's functions and nothing else" exports_only_ours

soname() {
    local abi
    abi=$(sed -n 's/^#define CARAT_ABI_VERSION \([0-9]*\).*/\1/p' include/carat.h)
    readelf -d "$so" | grep -q "SONAME.*\[libcarat.so.$abi\]"
}
check "the shared library has a versioned soname" soname

pages() {
    local aligns align
    aligns=$(readelf -lW "$so" | awk '$1 == "LOAD" { print $NF }')
    [ -n "$aligns" ] || return 1
    for align in $aligns; do
        [ $((align % 16384)) -eq 0 ] || { readelf -lW "$so"; return 1; }
    done
}
check "every LOAD segment is aligned for pages of 16 KB" pages

[ "$CARAT_PROFILE" = dev ] || check "no library is larger than it may be" scripts/sizes.py "$prefix"

pkg_config_project() {
    PKG_CONFIG_PATH=$prefix/lib/pkgconfig make -s -C examples/c clean carat-hello OUT="$out/pkg" &&
        LD_LIBRARY_PATH=$prefix/lib "$out/pkg/carat-hello" "$data/tiny-gemma3.gguf" "Hello" >"$out/hello.txt" &&
        [ -s "$out/hello.txt" ]
}
check "examples/c builds by pkg-config against the installed library and runs" pkg_config_project

cmake_project() {
    rm -rf "$out/cmake" && cmake -S examples/c -B "$out/cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$out/cmake.log" &&
        cmake --build "$out/cmake" >>"$out/cmake.log" &&
        "$out/cmake/carat-hello" "$data/tiny-gemma3.gguf" "Hello" >"$out/hello-cmake.txt" &&
        cmp "$out/hello.txt" "$out/hello-cmake.txt"
}
check "examples/c builds by CMake against the installed library and runs" cmake_project

# The other library has Rust's run-time in it, as libcarat.a has.
beside_another_rust_library() {
    local globals
    globals=$(nm -g --defined-only "$prefix/lib/libcarat-prelinked.a" | awk 'NF == 3 && $3 !~ /^carat_/')
    [ -z "$globals" ] || { echo "libcarat-prelinked.a has global $globals"; return 1; }
    rustc -O --edition=2024 --crate-type staticlib tests/c/other.rs -o "$out/libother.a" || return 1
    local ours=$prefix/lib/libcarat-prelinked.a other=$out/libother.a libraries
    for libraries in "$ours $other" "$other $ours"; do
        # shellcheck disable=SC2086
        cc -std=c99 "${flags[@]}" tests/c/two-libraries.c $libraries -lpthread -ldl -lm -lgcc_s -o "$out/two-libraries" &&
            "$out/two-libraries" "$data/tiny-gemma3.gguf" 2>/dev/null || return 1
    done
}
check "the prelinked library links beside another Rust library" beside_another_rust_library

notices() {
    local name
    for name in LICENSE-APACHE LICENSE-MIT NOTICE THIRD-PARTY-NOTICES.txt; do
        cmp "$name" "$prefix/share/doc/carat/$name" || return 1
    done
}
check "licences and notices are installed" notices

panic_abort() {
    ! cargo check --quiet -p carat --lib --features capi --config 'profile.dev.panic="abort"' \
        --target-dir "$out/abort" >"$out/abort.log" 2>&1 && grep -q 'panic = "unwind"' "$out/abort.log"
}
check "a build with panic = abort is refused" panic_abort

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
