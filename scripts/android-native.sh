#!/usr/bin/env bash
# Builds the native part of the Android library for arm64-v8a and x86_64, checks it, and puts it where the Gradle project
# packs it: bindings/kotlin/android/src/main/jniLibs.
# usage: scripts/android-native.sh [arm64-v8a] [x86_64]; both unless said
#
# Without the NDK it is built by Debian's Rust and linked by lld (scripts/cross-toolchain.sh) against stubs of Android's
# libraries, made of the symbols in bindings/kotlin/android/bionic.txt. With ANDROID_NDK_HOME it is linked by the NDK's
# clang, after `rustup target add aarch64-linux-android x86_64-linux-android`; that way was never run here.
set -euo pipefail
cd "$(dirname "$0")/.."

api=24
binding=$PWD/bindings/kotlin
functions=$(sed -n 's/^ *@JvmStatic external fun \([A-Za-z0-9]*\).*/Java_ai_carat_Native_\1/p' \
    "$binding/carat/src/main/kotlin/ai/carat/Native.kt"; echo JNI_OnLoad)
allowed=$binding/android/bionic.txt
linking=(-shared --gc-sections -z max-page-size=16384 -z relro -z now --hash-style=gnu --eh-frame-hdr --build-id
    --no-undefined -soname libcarat_jni.so "--version-script=$binding/jni/exports")
for name in $functions; do linking+=(-u "$name"); done

if [ -n "${ANDROID_NDK_HOME:-}" ]; then
    tools=$ANDROID_NDK_HOME/toolchains/llvm/prebuilt/linux-x86_64/bin
    out=$PWD/target/android
    export CARGO_TARGET_DIR=$out
else
    environment=$(scripts/cross-toolchain.sh)
    eval "$environment"
    tools=$CARAT_CROSS/bin
    out=$CARAT_CROSS/android
    # The standard library is built from its sources, which takes an unstable option of cargo's: with its default features
    # but the one that names the functions of a backtrace, 200 KB that find no names in a stripped library.
    features=(-Zbuild-std-features=default,panic-unwind)
    export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$CARAT_CROSS/build
fi
mkdir -p "$out"

# Libraries with the symbols of bionic.txt and nothing behind them, to link against.
stubs() { # EMULATION FOLDER
    local emulation=$1 to=$2 library symbols
    mkdir -p "$to"
    printf '!<arch>\n' >"$to/nothing.a"
    for library in libc libm libdl liblog; do
        symbols=$(awk -v l="$library" '$1 == l { print "--defsym=" $2 "=0" }' "$allowed")
        # shellcheck disable=SC2086
        "$tools/ld.lld" -shared -m "$emulation" -soname "$library.so" $symbols -o "$to/$library.so" "$to/nothing.a"
    done
}

check_library() { # FILE MACHINE
    local so=$1 machine=$2 aligns align symbol
    say() { echo "android-native: $so: $*" >&2; }
    "$tools/llvm-readelf" -hW "$so" | grep "Machine: *$machine" >/dev/null || { say "not for $machine"; return 1; }
    diff <("$tools/llvm-nm" -D --defined-only "$so" | awk '{print $3}' | sort) <(sort <<<"$functions") ||
        { say "exports other than Native.kt's functions"; return 1; }
    diff <("$tools/llvm-readelf" -dW "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort) \
        <(printf 'libc.so\nlibdl.so\nlibm.so\n') || { say "needs other libraries"; return 1; }
    aligns=$("$tools/llvm-readelf" -lW "$so" | awk '$1 == "LOAD" { print $NF }')
    [ -n "$aligns" ] || { say "no segments"; return 1; }
    for align in $aligns; do
        [ $((align % 16384)) -eq 0 ] || { say "a segment is aligned for pages of $((align)) bytes"; return 1; }
    done
    # Weak ones may be missing on a device, and are asked for before they are called.
    for symbol in $("$tools/llvm-nm" -D --undefined-only "$so" | awk '$1 == "U" { print $2 }' | sed 's/@.*//'); do
        awk -v s="$symbol" '$2 == s { found = 1 } END { exit !found }' "$allowed" ||
            { say "$symbol is not among the symbols of API level $api"; return 1; }
    done
    "$tools/llvm-readelf" -dW "$so" | grep TEXTREL >/dev/null && { say "has text relocations"; return 1; }
    return 0
}

[ $# -gt 0 ] || set -- arm64-v8a x86_64
for abi in "$@"; do
    case $abi in
    arm64-v8a) processor=aarch64 machine=AArch64 emulation=aarch64linux ;;
    x86_64) processor=x86_64 machine=".*X86-64" emulation=elf_x86_64 ;;
    *) echo "usage: scripts/android-native.sh [arm64-v8a] [x86_64]" >&2; exit 2 ;;
    esac
    triple=$processor-linux-android
    mkdir -p "$out/$abi"
    so=$out/$abi/libcarat_jni.so
    if [ -n "${ANDROID_NDK_HOME:-}" ]; then
        # The C compiler that dependencies and the linking want.
        clang=$tools/$triple$api-clang
        cargo rustc --quiet --target "$triple" --release -p carat-jni --features capi --lib --crate-type staticlib
        joined=$(IFS=,; echo "${linking[*]:1}")
        "$clang" -shared "-Wl,$joined" -o "$so" "$CARGO_TARGET_DIR/$triple/release/libcarat_jni.a" -lm -ldl -lunwind
    else
        cargo rustc --quiet -Zbuild-std=std "${features[@]}" --target "$triple" --release -p carat-jni \
            --features capi,debian-libunwind --lib --crate-type staticlib
        stubs "$emulation" "$out/$abi/stubs"
        "$tools/ld.lld" -m "$emulation" "${linking[@]}" --no-dependent-libraries -o "$so" \
            "$CARGO_TARGET_DIR/$triple/release/libcarat_jni.a" "$CARAT_CROSS/unwind/$processor/libunwind.a" \
            -L "$out/$abi/stubs" --as-needed -lc -lm -ldl -llog
    fi
    "$tools/llvm-strip" --strip-unneeded "$so"
    check_library "$so" "$machine"
    install -D -m 644 "$so" "$binding/android/src/main/jniLibs/$abi/libcarat_jni.so"
    echo "$abi: $(stat -c %s "$so") bytes, $(wc -w <<<"$functions") functions, pages of 16 KB" >&2
done
[ $# -lt 2 ] || scripts/sizes.py --android >&2
