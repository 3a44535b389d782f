#!/usr/bin/env bash
# Builds CCarat.xcframework beside this file: the C library for iOS, its simulator and macOS, as static frameworks with
# header, module map and privacy manifest. Package.swift uses it where it is there.
# usage: bindings/swift/make-xcframework.sh, on a Mac with Xcode 15 or newer and Rust from rustup
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "make-xcframework: $*" >&2; }
for tool in cargo rustup lipo xcodebuild; do
    command -v "$tool" >/dev/null 2>&1 || { say "$tool is missing: this needs a Mac with Xcode and Rust"; exit 1; }
done

package=bindings/swift
target=${CARGO_TARGET_DIR:-target}
out=$target/xcframework
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# What Package.swift asks for.
export MACOSX_DEPLOYMENT_TARGET=12.0 IPHONEOS_DEPLOYMENT_TARGET=15.0
rm -rf "$out" "$package/CCarat.xcframework"

# The library of one target.
build() {
    rustup target add "$1" >&2
    cargo rustc --quiet -p carat --lib --features capi --release --crate-type staticlib --target "$1"
}

# framework PLATFORM MINIMUM TARGETS...: a static framework of the targets' libraries.
framework() {
    local platform=$1 minimum=$2
    shift 2
    local bundle=$out/$platform/CCarat.framework libraries=() one
    for one in "$@"; do
        build "$one"
        libraries+=("$target/$one/release/libcarat.a")
    done
    # On macOS a framework has versions, elsewhere it is flat.
    local contents=$bundle resources=$bundle
    if [ "$platform" = MacOSX ]; then
        contents=$bundle/Versions/A
        resources=$contents/Resources
    fi
    mkdir -p "$contents/Headers" "$contents/Modules" "$resources"
    lipo -create "${libraries[@]}" -output "$contents/CCarat"
    cp include/carat.h "$contents/Headers/"
    cat >"$contents/Modules/module.modulemap" <<'END'
framework module CCarat [system] {
    header "carat.h"
    export *
}
END
    cp "$package/Sources/Carat/PrivacyInfo.xcprivacy" LICENSE-APACHE LICENSE-MIT NOTICE THIRD-PARTY-NOTICES.txt "$resources/"
    local least=MinimumOSVersion
    [ "$platform" != MacOSX ] || least=LSMinimumSystemVersion
    cat >"$resources/Info.plist" <<END
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>CFBundleExecutable</key>
	<string>CCarat</string>
	<key>CFBundleIdentifier</key>
	<string>ai.carat.CCarat</string>
	<key>CFBundleInfoDictionaryVersion</key>
	<string>6.0</string>
	<key>CFBundleName</key>
	<string>CCarat</string>
	<key>CFBundlePackageType</key>
	<string>FMWK</string>
	<key>CFBundleShortVersionString</key>
	<string>$version</string>
	<key>CFBundleVersion</key>
	<string>$version</string>
	<key>CFBundleSupportedPlatforms</key>
	<array>
		<string>$platform</string>
	</array>
	<key>$least</key>
	<string>$minimum</string>
</dict>
</plist>
END
    if [ "$platform" = MacOSX ]; then
        ln -s A "$bundle/Versions/Current"
        for one in CCarat Headers Modules Resources; do ln -s "Versions/Current/$one" "$bundle/$one"; done
    fi
}

framework iPhoneOS "$IPHONEOS_DEPLOYMENT_TARGET" aarch64-apple-ios
framework iPhoneSimulator "$IPHONEOS_DEPLOYMENT_TARGET" aarch64-apple-ios-sim x86_64-apple-ios
framework MacOSX "$MACOSX_DEPLOYMENT_TARGET" aarch64-apple-darwin x86_64-apple-darwin
xcodebuild -create-xcframework \
    -framework "$out/iPhoneOS/CCarat.framework" \
    -framework "$out/iPhoneSimulator/CCarat.framework" \
    -framework "$out/MacOSX/CCarat.framework" \
    -output "$package/CCarat.xcframework"
say "made $package/CCarat.xcframework"
