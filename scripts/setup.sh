#!/usr/bin/env bash
# Checks for the tools that a make target needs, and installs those that Debian or Ubuntu has, when it may.
# usage: scripts/setup.sh run|test|old-x86|bench|swift|kotlin|arm
# It can be called again at any time: what is there is left alone.
set -euo pipefail

say() { echo "setup: $*" >&2; }

case ${1:-} in
run) packages=(python3 pip cc) ;;
test) packages=(python3 pip venv cc c++ cmake make pkg-config jansson nlohmann-json) ;;
old-x86) packages=(python3 pip cc c++ cmake qemu-x86_64) ;;
swift) packages=(python3 cc debootstrap unshare) ;;
kotlin) packages=(python3 pip cc java npm) ;;
bench) packages=(python3 pip cc c++ cmake libclang) ;;
arm) packages=(python3 pip cc c++ cmake qemu-aarch64 aarch64-linux-gnu-gcc aarch64-linux-gnu-g++) ;;
*)
    say "usage: scripts/setup.sh run|test|old-x86|bench|swift|kotlin|arm"
    exit 2
    ;;
esac

# Whether the C++ compiler finds a header.
header() { echo "#include <$1>" | c++ -fsyntax-only -x c++ - 2>/dev/null; }

there() {
    case $1 in
    pip) python3 -m pip --version >/dev/null 2>&1 ;;
    jansson) header jansson.h ;;
    nlohmann-json) header nlohmann/json.hpp ;;
    venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    # The bindings of a peer are made from its headers.
    libclang) [ -n "${LIBCLANG_PATH:-}" ] || compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" >/dev/null ||
        compgen -G "/usr/lib*/libclang*.so*" >/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# The Debian package that brings a tool.
package_of() {
    case $1 in
    python3) echo python3 ;;
    pip) echo python3-pip ;;
    venv) echo python3-venv ;;
    cc) echo gcc libc6-dev ;;
    c++) echo g++ ;;
    cmake) echo cmake ;;
    make) echo make ;;
    pkg-config) echo pkg-config ;;
    jansson) echo libjansson-dev ;;
    nlohmann-json) echo nlohmann-json3-dev ;;
    debootstrap) echo debootstrap ;;
    unshare) echo util-linux ;;
    java) echo default-jdk-headless ;;
    npm) echo npm ;;
    qemu-x86_64 | qemu-aarch64) echo qemu-user ;;
    libclang) echo libclang-dev ;;
    aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
    aarch64-linux-gnu-g++) echo g++-aarch64-linux-gnu ;;
    esac
}

if ! there cargo; then
    # A login shell may not have been started since rustup was installed.
    say "cargo is missing: install Rust 1.89 or newer (rustup.rs), then open a new shell"
    exit 1
fi

missing=()
for tool in "${packages[@]}"; do
    there "$tool" || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0

read -ra install <<<"$(for tool in "${missing[@]}"; do package_of "$tool"; done | tr '\n' ' ')"
if ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]}. Install them with your system's package manager and try again."
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    sudo=()
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo=(sudo)
else
    say "missing: ${missing[*]}. Run: sudo apt-get install ${install[*]}"
    exit 1
fi
say "installing ${install[*]}"
"${sudo[@]}" apt-get update -q >&2
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -q -y --no-install-recommends "${install[@]}" >&2
for tool in "${missing[@]}"; do
    if ! there "$tool"; then
        say "$tool is still missing after installing $(package_of "$tool")"
        exit 1
    fi
done
