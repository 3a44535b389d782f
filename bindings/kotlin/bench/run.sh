#!/usr/bin/env bash
# Measures what streaming through Kotlin costs over the C interface, in one run: microseconds a token of a tiny model.
# usage: bindings/kotlin/bench/run.sh [release|dev [MODEL]], after scripts/test-kotlin.sh of the same profile
set -euo pipefail
cd "$(dirname "$0")/../../.."

profile=${1:-release} model=${2:-tests/data/tiny-gemma3.gguf}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/kotlin
home=$(echo "$out"/compiler-*/node_modules/kotlin-compiler)
CARAT_PROFILE=$profile scripts/install.sh "$out/installed"
cc -std=c99 -O2 -I "$out/installed/include" bindings/kotlin/bench/stream.c "$out/installed/lib/libcarat.a" \
    -lpthread -ldl -lm -o "$out/stream"
classes=$out/tests.jar:$out/carat.jar:$home/lib/kotlinx-coroutines-core-jvm.jar:$home/lib/kotlin-stdlib.jar
"$out/stream" "$model"
java -Djava.library.path="$out/native" -cp "$classes" StreamKt "$model"
"$out/stream" "$model"
