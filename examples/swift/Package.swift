// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "S2DiTKit",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [
        .library(name: "S2DiTKit", targets: ["S2DiTKit"]),
        .library(name: "S2DiTHost", targets: ["S2DiTHost"]),
    ],
    dependencies: [.package(path: "../device-report")],
    targets: [
        // Contracts, samplers, noise, host inputs, states, tokenizers: Foundation only, tested on Linux.
        .target(name: "S2DiTHost"),
        // The engine that asks `s2ditc run --serve`: where there is no Core ML.
        .target(name: "S2DiTServe", dependencies: ["S2DiTHost"]),
        // The engine that asks Core ML.
        .target(name: "S2DiTKit", dependencies: ["S2DiTHost"]),
        .executableTarget(
            name: "s2dit-run",
            dependencies: [
                "S2DiTHost", "S2DiTKit", "S2DiTServe",
                .product(name: "DeviceReport", package: "device-report"),
            ]),
        .testTarget(name: "S2DiTHostTests", dependencies: ["S2DiTHost", "S2DiTServe"], exclude: ["Vectors"]),
    ],
    swiftLanguageModes: [.v5]
)
