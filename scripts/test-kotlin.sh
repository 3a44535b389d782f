#!/usr/bin/env bash
# Tests of the Kotlin binding on the JVM: fetches the Kotlin compiler into the target folder, builds the native part, the
# binding and its tests, and runs them. Sources that need Android are compiled against stubs.
# usage: scripts/test-kotlin.sh [release|dev]
# The real model is that of CARAT_TEST_MODEL, else the one that `carat run` uses.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
scripts/setup.sh kotlin
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/kotlin
mkdir -p "$out"

kotlin_version=2.4.20
compiler=$out/compiler-$kotlin_version
if [ ! -e "$compiler/ready" ]; then
    echo "fetching Kotlin $kotlin_version" >&2
    npm install --silent --ignore-scripts --prefix "$compiler" "kotlin-compiler@$kotlin_version" >&2
    touch "$compiler/ready"
fi
home=$compiler/node_modules/kotlin-compiler
coroutines=$home/lib/kotlinx-coroutines-core-jvm.jar
kotlinc() { bash "$home/bin/kotlinc" -jvm-target 17 -Werror "$@"; }

if [ -z "${CARAT_TEST_MODEL:-}" ]; then
    CARAT_TEST_MODEL=$(cargo run -p carat-cli --quiet -- pull)
    export CARAT_TEST_MODEL
fi

native=$(scripts/jni.sh "$profile")
binding=bindings/kotlin
. scripts/checks.sh

library=$out/carat.jar
up_to_date() { # JAR, what it is made of
    local jar=$1
    shift
    [ -e "$jar" ] && [ -z "$(find "$@" "$compiler/ready" scripts/test-kotlin.sh -newer "$jar" -print -quit)" ]
}
if ! up_to_date "$library" $binding/carat; then
    kotlinc -Xexplicit-api=strict -cp "$coroutines" -d "$library" $binding/carat/src/main/kotlin
fi
# What needs Android has stubs of Android's classes, which tell whether names and types are right and no more.
if ! up_to_date "$out/tests.jar" "$library" $binding/tests $binding/bench $binding/examples $binding/android/src/main/kotlin; then
    kotlinc -cp "$library:$coroutines" -Xfriend-paths="$library" -d "$out/tests.jar" $binding/tests $binding/bench \
        $binding/examples/hello $binding/android/src/main/kotlin $binding/examples/assistant/src/main/kotlin
fi
classes=$out/tests.jar:$library:$coroutines:$home/lib/kotlin-stdlib.jar
run=(java -Xcheck:jni -Djava.library.path="$native" -cp "$classes")

log=$out/log
"${run[@]}" --add-opens java.base/java.io=ALL-UNNAMED ai.carat.tests.CheckKt tests/data tests/conformance 2>&1 |
    tee "$log" || true
add_counts "$log" "the program of tests"
check "the checks of the JVM's own (-Xcheck:jni) had nothing to say" \
    eval "! grep -E '^(WARNING|FATAL ERROR) in native method|^WARNING: JNI' '$log'"

hello() {
    "${run[@]}" HelloKt tests/data/tiny-gemma3.gguf "Hello" >"$out/hello.txt" && [ -s "$out/hello.txt" ]
}
check "the example of the README runs" hello

so=$native/libcarat_jni.so
exports() {
    diff <(nm -D --defined-only "$so" | awk '{print $3}' | sort) \
        <(sed -n 's/^ *@JvmStatic external fun \([A-Za-z0-9]*\).*/Java_ai_carat_Native_\1/p' \
            $binding/carat/src/main/kotlin/ai/carat/Native.kt | cat - <(echo JNI_OnLoad) | sort)
}
check "the native library exports the functions of Native.kt and nothing else" exports

pages() {
    readelf -lW "$so" | awk '$1 == "LOAD" && $NF != "0x4000" { bad = 1 } END { exit bad }'
}
check "its segments are aligned for pages of 16 KB" pages

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
