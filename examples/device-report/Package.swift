// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "device-report",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [.library(name: "DeviceReport", targets: ["DeviceReport"])],
    targets: [
        .target(name: "DeviceReport"),
        .executableTarget(name: "device-report", dependencies: ["DeviceReport"]),
    ],
    swiftLanguageModes: [.v5]
)
