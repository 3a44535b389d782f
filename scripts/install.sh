#!/usr/bin/env bash
# Builds the C library and installs it: header, static, prelinked and shared library, pkg-config file, CMake package,
# licences and notices.
# usage: scripts/install.sh PREFIX
# Environment: DESTDIR is put before PREFIX; CARAT_PROFILE=dev builds faster and runs slower (for tests).
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${1:?usage: scripts/install.sh PREFIX}
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
root=${DESTDIR:-}$prefix
profile=${CARAT_PROFILE:-release}
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
abi=$(sed -n 's/^#define CARAT_ABI_VERSION \([0-9]*\).*/\1/p' include/carat.h)
# What a Rust static library needs of the system.
system_libs="-lpthread -ldl -lm"

cargo rustc --quiet -p carat --lib --features capi --profile "$profile" --crate-type staticlib
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/libcarat.a

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The shared library is linked from the static one, so that this script says what it exports: carat_* alone.
printf '{ global: carat_*; local: *; };\n' >"$work/exports"
functions=$(sed -n 's/^function \(carat_[a-z0-9_]*\):.*/\1/p' include/carat.abi)
# 16 KB pages: newer Android devices refuse segments aligned for 4 KB.
# The linker that comes with Rust makes it smaller than the system's, where there is one.
lld=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/gcc-ld
linker=()
[ ! -x "$lld/ld.lld" ] || linker=(-fuse-ld=lld -B "$lld")
# shellcheck disable=SC2086
cc -shared "${linker[@]}" -o "$work/libcarat.so" -Wl,-soname,libcarat.so."$abi" -Wl,--version-script="$work/exports" ${functions//carat_/-Wl,-u,carat_} \
    -Wl,--gc-sections -Wl,-z,max-page-size=16384 -Wl,-z,relro,-z,now "$built" $system_libs -lgcc_s -lc
[ "$profile" = dev ] || strip --strip-unneeded "$work/libcarat.so"

# The static library as one object in which nothing but carat_* is global: a program that has another Rust library in
# it, which brings Rust's run-time along as this one does, links this one.
# No section groups stay in it: of two alike the linker drops one, to whose symbols the other library would refer.
# shellcheck disable=SC2086
ld -r --force-group-allocation --gc-sections ${functions//carat_/-u carat_} "$built" -o "$work/carat.o"
# The bitcode of Rust's standard library goes too: an `ar` with an older LLVM's plugin ends on it.
objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd --wildcard --keep-global-symbol='carat_*' \
    "$work/carat.o"
ar rcs "$work/libcarat-prelinked.a" "$work/carat.o"

install -d "$root/share/doc/carat" "$root/include" "$root/lib/pkgconfig" "$root/lib/cmake/carat"
install -m 644 include/carat.h "$root/include/"
[ -e include/carat.hpp ] && install -m 644 include/carat.hpp "$root/include/"
install -m 644 "$built" "$root/lib/libcarat.a"
install -m 644 "$work/libcarat-prelinked.a" "$root/lib/"
install -m 644 LICENSE-APACHE LICENSE-MIT NOTICE THIRD-PARTY-NOTICES.txt "$root/share/doc/carat/"
install -m 755 "$work/libcarat.so" "$root/lib/libcarat.so.$abi.$version"
ln -sf "libcarat.so.$abi.$version" "$root/lib/libcarat.so.$abi"
ln -sf "libcarat.so.$abi" "$root/lib/libcarat.so"

cat >"$root/lib/pkgconfig/carat.pc" <<END
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: carat
Description: Inference for Google's Gemma models on the CPU
Version: $version
Cflags: -I\${includedir}
Libs: -L\${libdir} -lcarat
Libs.private: $system_libs
END

cat >"$root/lib/cmake/carat/carat-config.cmake" <<END
# find_package(carat) gives the targets carat::carat (shared) and carat::carat-static.
get_filename_component(_carat_prefix "\${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET carat::carat)
  add_library(carat::carat SHARED IMPORTED)
  set_target_properties(carat::carat PROPERTIES
    IMPORTED_LOCATION "\${_carat_prefix}/lib/libcarat.so.$abi.$version"
    IMPORTED_SONAME "libcarat.so.$abi"
    INTERFACE_INCLUDE_DIRECTORIES "\${_carat_prefix}/include")
  add_library(carat::carat-static STATIC IMPORTED)
  set_target_properties(carat::carat-static PROPERTIES
    IMPORTED_LOCATION "\${_carat_prefix}/lib/libcarat.a"
    INTERFACE_INCLUDE_DIRECTORIES "\${_carat_prefix}/include"
    INTERFACE_LINK_LIBRARIES "pthread;dl;m")
endif()
END
cat >"$root/lib/cmake/carat/carat-config-version.cmake" <<END
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
END
echo "installed carat $version to $root" >&2
