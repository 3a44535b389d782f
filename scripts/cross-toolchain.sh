#!/usr/bin/env bash
# Brings what building for 64-bit ARM and for Android on an x86-64 Debian 12 without the NDK needs: Debian's Rust 1.96
# with arm64's standard library and the sources of it, lld, llvm-mca, and LLVM's libunwind for both processors, unpacked
# under target/cross. Nothing is installed and no privileges are needed. What is there is left alone.
# usage: eval "$(scripts/cross-toolchain.sh)" sets the variables that cargo wants, and CARAT_CROSS, the folder: lld is
# $CARAT_CROSS/bin/ld.lld, the unwinder $CARAT_CROSS/unwind/PROCESSOR/libunwind.a.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "cross-toolchain: $*" >&2; }

cross=$PWD/target/cross
host_packages=(rustc-web libstd-rust-web-1.96 libstd-rust-web-dev rust-web-src libllvm22 lld-19 llvm-19 libllvm19
    libunwind-19-dev)
target_packages=(libunwind-19-dev:arm64 libstd-rust-web-dev:arm64)

wrapper() { # NAME PROGRAM LIBRARIES...
    local name=$1 program=$2
    shift 2
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$(IFS=:; echo "$*")" "$program" >"$cross/bin/$name"
    chmod +x "$cross/bin/$name"
}

if [ ! -e "$cross/ready-2" ]; then
    if ! command -v apt-get >/dev/null || [ "$(dpkg --print-architecture)" != amd64 ]; then
        say "this needs Debian 12 on x86-64"
        exit 1
    fi
    say "unpacking Debian's Rust and LLVM under $cross"
    rm -rf "$cross/root"
    mkdir -p "$cross"/{bin,root,arm64,debs,unwind/x86_64,unwind/aarch64,apt/lists/partial,apt/cache/archives/partial}
    # Lists of packages of our own, so that the system keeps its architectures.
    cat >"$cross/apt/apt.conf" <<END
Dir::State "$cross/apt";
Dir::State::Lists "$cross/apt/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$cross/apt/cache";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
END
    export APT_CONFIG=$cross/apt/apt.conf
    apt-get update -q >&2
    (cd "$cross/debs" && apt-get download -q "${host_packages[@]}" "${target_packages[@]}" >&2)
    for deb in "$cross"/debs/*.deb; do
        case $deb in *_arm64.deb) dpkg -x "$deb" "$cross/arm64" ;; *) dpkg -x "$deb" "$cross/root" ;; esac
    done
    mv "$cross/arm64/usr/lib/rustlib/aarch64-unknown-linux-gnu" "$cross/root/usr/lib/rustlib/"
    lib=$cross/root/usr/lib/x86_64-linux-gnu
    wrapper rustc "$cross/root/usr/bin/rustc" "$lib"
    wrapper rustdoc "$cross/root/usr/bin/rustdoc" "$lib"
    for tool in ld.lld llvm-strip llvm-readelf llvm-nm llvm-mca llvm-objdump; do
        wrapper "$tool" "$cross/root/usr/lib/llvm-19/bin/$tool" "$cross/root/usr/lib/llvm-19/lib" "$lib"
    done
    cp "$cross/root/usr/lib/llvm-19/lib/libunwind.a" "$cross/unwind/x86_64/"
    cp "$cross/arm64/usr/lib/llvm-19/lib/libunwind.a" "$cross/unwind/aarch64/"
    "$cross/bin/rustc" --version >&2
    "$cross/bin/ld.lld" --version >&2
    "$cross/bin/llvm-mca" --version >/dev/null
    rm -rf "$cross/debs" "$cross/apt" "$cross/arm64"
    touch "$cross/ready-2"
fi

cat <<END
export CARAT_CROSS='$cross' RUSTC='$cross/bin/rustc' RUSTDOC='$cross/bin/rustdoc'
END
