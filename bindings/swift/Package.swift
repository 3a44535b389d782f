// swift-tools-version: 6.0
import Foundation
import PackageDescription

// The C library comes from one of two places: CCarat.xcframework beside this file (make-xcframework.sh), for Apple's
// systems, or else an installed carat, found by pkg-config (`make install`; PKG_CONFIG_PATH says where it is).
let framework = "CCarat.xcframework"
let library: Target =
    FileManager.default.fileExists(atPath: Context.packageDirectory + "/" + framework)
    ? .binaryTarget(name: "CCarat", path: framework)
    : .systemLibrary(name: "CCarat", pkgConfig: "carat")

let package = Package(
    name: "Carat",
    platforms: [.macOS(.v12), .iOS(.v15), .tvOS(.v15), .watchOS(.v8), .visionOS(.v1)],
    products: [.library(name: "Carat", targets: ["Carat"])],
    targets: [
        library,
        .target(name: "Carat", dependencies: ["CCarat"], resources: [.copy("PrivacyInfo.xcprivacy")]),
        .executableTarget(name: "Hello", dependencies: ["Carat"], path: "Examples/Hello"),
        // What can be compiled without SwiftUI of the app in Examples/Chat.
        .target(name: "ChatModel", dependencies: ["Carat"], path: "Examples/Chat", exclude: ["README.md", "ChatApp.swift", "ChatView.swift"]),
        .executableTarget(name: "StreamBench", dependencies: ["Carat", "CCarat"]),
        .testTarget(name: "CaratTests", dependencies: ["Carat", "CCarat", "ChatModel"]),
    ],
    swiftLanguageModes: [.v6]
)
