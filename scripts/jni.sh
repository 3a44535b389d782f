#!/usr/bin/env bash
# Builds the native part of the Kotlin binding for this machine: libcarat_jni.so, in the folder that it prints.
# usage: scripts/jni.sh [release|dev]
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/kotlin/native
mkdir -p "$out"

cargo rustc --quiet -p carat-jni --features capi --lib --profile "$profile" --crate-type staticlib
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/libcarat_jni.a

# As in scripts/install.sh: linked from the static library, so that this says what is exported.
symbols=$(grep -rhoE 'fn Java_ai_carat_Native_[A-Za-z0-9]+' bindings/kotlin/jni/src | sed 's/^fn /-Wl,-u,/')
# shellcheck disable=SC2086
cc -shared -o "$out/libcarat_jni.so.new" -Wl,-soname,libcarat_jni.so \
    -Wl,--version-script=bindings/kotlin/jni/exports -Wl,-u,JNI_OnLoad $symbols \
    -Wl,--gc-sections -Wl,-z,max-page-size=16384 -Wl,-z,relro,-z,now "$built" -lpthread -ldl -lm -lgcc_s -lc
[ "$profile" = dev ] || strip --strip-unneeded "$out/libcarat_jni.so.new"
mv "$out/libcarat_jni.so.new" "$out/libcarat_jni.so"
echo "$out"
